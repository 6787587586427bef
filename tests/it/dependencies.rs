//! The crates that Mooring is built from: their licences, and what is known against them.
//!
//! The advisories are those of <https://github.com/rustsec/advisory-db>, from a folder: a test must
//! not depend on the network. `ADVISORY_DB` names it; without it `../shared/advisory-db` beside
//! this repository is read, if it is there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use rustsec::report::Settings;
use rustsec::{Database, Lockfile, Report};
use serde_json::Value;
use spdx::{Expression, LicenseReq};

/// Licences that allow us to hand on what contains the code, under our own licence and with theirs.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Advisories that do not concern us, each with the reason.
const IGNORED: &[(&str, &str)] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_allowed(request: &LicenseReq) -> bool {
    request.license.id().is_some_and(|id| ALLOWED.contains(&id.name))
}

/// What the compiler calls this kind of machine.
fn host() -> String {
    let told = Command::new("rustc").arg("-vV").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    told.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// Whether a licence, as a manifest says it, leaves a choice that is allowed.
fn may_be_used(licence: &str) -> bool {
    // Old manifests write "MIT/Apache-2.0".
    Expression::parse(&licence.replace('/', " OR ")).is_ok_and(|it| it.evaluate(is_allowed))
}

#[test]
fn the_licence_of_each_crate_is_one_that_we_may_use() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Those of this kind of machine: they are there, because this test was built from them.
    let told = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", &host()])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let packages = told["packages"].as_array().unwrap();
    assert!(100 < packages.len(), "only {} crates were named", packages.len());
    let refused = |package: &&Value| !package["license"].as_str().is_some_and(may_be_used);
    let refused: Vec<String> = packages
        .iter()
        .filter(refused)
        .map(|package| format!("{} ({})", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "not among the allowed licences: {refused:#?}");
}

#[test]
fn a_licence_without_an_allowed_choice_is_found() {
    for fine in ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "(MIT OR Zlib) AND ISC"] {
        assert!(may_be_used(fine), "{fine}");
    }
    for bad in ["GPL-3.0-only", "MIT AND AGPL-3.0-only", "", "of our own", "LGPL-2.1-or-later"] {
        assert!(!may_be_used(bad), "{bad}");
    }
}

/// The vulnerabilities that are known of the locked crates.
fn known_against(advisories: &Path, lockfile: &Path) -> Vec<String> {
    let database = Database::open(advisories).unwrap();
    assert!(0 < database.iter().count(), "no advisory is in {}", advisories.display());
    let lockfile = Lockfile::load(lockfile).unwrap();
    let ignore = IGNORED.iter().map(|(id, _why)| id.parse().unwrap()).collect();
    let settings = Settings { ignore, ..Settings::default() };
    let report = Report::generate(&database, &lockfile, &settings);
    let found = report.vulnerabilities.list.iter();
    found
        .map(|it| {
            let (advisory, package) = (&it.advisory, &it.package);
            format!("{}: {} {}: {}", advisory.id, package.name, package.version, advisory.title)
        })
        .collect()
}

#[test]
fn no_vulnerability_of_a_crate_is_known() {
    let advisories = match env::var_os("ADVISORY_DB") {
        Some(named) => PathBuf::from(named),
        None => root().join("../shared/advisory-db"),
    };
    if env::var_os("ADVISORY_DB").is_none() && !advisories.is_dir() {
        // `make lint` says so: what a test says that passes is not shown.
        return;
    }
    let known = known_against(&advisories, &root().join("Cargo.lock"));
    assert!(known.is_empty(), "{known:#?}");
}

#[test]
fn a_known_vulnerability_is_found_in_the_versions_that_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let crates = folder.path().join("crates/sieve");
    fs::create_dir_all(&crates).unwrap();
    let advisory = "```toml\n[advisory]\nid = \"RUSTSEC-2020-0001\"\npackage = \"sieve\"\n\
                    date = \"2020-01-01\"\n[versions]\npatched = [\">= 1.2.3\"]\n```\n\n\
                    # It leaks\n\nAs sieves do.\n";
    fs::write(crates.join("RUSTSEC-2020-0001.md"), advisory).unwrap();
    let lockfile = folder.path().join("Cargo.lock");
    // Only crates of the usual registry have advisories: as ours are.
    let ours = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let source = ours.lines().find(|line| line.starts_with("source = ")).unwrap();
    for (version, found) in [("1.2.2", 1), ("1.2.3", 0)] {
        let locked = format!(
            "version = 4\n\n[[package]]\nname = \"sieve\"\nversion = \"{version}\"\n\
             {source}\n"
        );
        fs::write(&lockfile, locked).unwrap();
        let known = known_against(folder.path(), &lockfile);
        assert_eq!(known.len(), found, "{known:?}");
    }
}
