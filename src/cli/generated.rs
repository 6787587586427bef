//! Shell completions and manual pages, made from the definitions of the command line.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::{EXIT_USAGE, say};

const NAME: &str = "mooring";

/// `mooring completions SHELL`.
pub(super) fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    print(&script)
}

/// `mooring man [DIR | --of VERB]`.
pub(super) fn man(args: &ManArgs) -> ExitCode {
    match (&args.folder, args.of.as_slice()) {
        (Some(folder), _) => match write_pages(folder) {
            Ok(count) => {
                say::note(&format!("Wrote {count} pages to {}", folder.display()));
                ExitCode::SUCCESS
            }
            Err(error) => say::failure(&error),
        },
        (None, verbs) => one_page(&file_name(verbs)),
    }
}

fn one_page(name: &str) -> ExitCode {
    let pages = match pages() {
        Ok(pages) => pages,
        Err(error) => return say::failure(&format!("cannot make the pages: {error}")),
    };
    match pages.iter().find(|page| page.name == name) {
        Some(page) => print(&page.text),
        None => {
            let names: Vec<String> = pages.iter().filter_map(|page| page.verb()).collect();
            let names = names.join(", ");
            say::note(&format!("mooring: there is no such verb; there are: {names}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn print(text: &[u8]) -> ExitCode {
    say::line(String::from_utf8_lossy(text).trim_end());
    ExitCode::SUCCESS
}

fn write_pages(folder: &Path) -> Result<usize, String> {
    let failed = |path: &Path, error| format!("cannot write {}: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let pages = pages().map_err(|error| failed(folder, error))?;
    for page in &pages {
        let path = folder.join(&page.name);
        fs::write(&path, &page.text).map_err(|error| failed(&path, error))?;
    }
    Ok(pages.len())
}

/// A manual page.
struct Page {
    /// As `man` looks for it, such as `mooring-backends-add.1`.
    name: String,
    text: Vec<u8>,
}

impl Page {
    /// The verb that it is about. `None` is the page about all of them.
    fn verb(&self) -> Option<String> {
        let name = self.name.strip_prefix(NAME)?.strip_suffix(".1")?;
        Some(name.strip_prefix('-')?.replace('-', " "))
    }
}

/// The page of the program, and one for each verb and each verb of a verb.
fn pages() -> io::Result<Vec<Page>> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let mut pages = Vec::new();
    push_pages(&cli, &[], &mut pages)?;
    Ok(pages)
}

fn push_pages(command: &Command, verbs: &[String], pages: &mut Vec<Page>) -> io::Result<()> {
    let mut text = Vec::new();
    // The date is left out, so that the same source gives the same bytes.
    let source = concat!("Mooring ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).source(source).manual("Mooring").render(&mut text)?;
    pages.push(Page { name: file_name(verbs), text });
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        push_pages(verb, &[verbs, &[verb.get_name().to_owned()]].concat(), pages)?;
    }
    Ok(())
}

fn file_name(verbs: &[String]) -> String {
    let verbs = verbs.iter().flat_map(|verb| verb.split_whitespace());
    let parts: Vec<&str> = [NAME].into_iter().chain(verbs).collect();
    format!("{}.1", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command as Process, Stdio};

    use clap_complete::Shell;

    use super::*;

    #[test]
    fn each_verb_has_a_page_with_its_flags_and_its_example() {
        let pages = pages().unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|page| page.name == name);
            String::from_utf8(page.unwrap_or_else(|| panic!("{name}")).text.clone()).unwrap()
        };
        for verb in Cli::command().get_subcommands() {
            let page = text(&format!("mooring-{}.1", verb.get_name()));
            assert!(page.contains("Example"), "{page}");
            assert!(text("mooring.1").contains(&format!("mooring\\-{}(1)", verb.get_name())));
            for inner in verb.get_subcommands() {
                text(&format!("mooring-{}-{}.1", verb.get_name(), inner.get_name()));
            }
        }
        let drain = text("mooring-drain.1");
        assert!(drain.contains("\\-\\-wait") && drain.contains("30m"), "{drain}");
        assert!(drain.starts_with(".ie"), "{drain}");
        let verbs: Vec<String> = pages.iter().filter_map(Page::verb).collect();
        assert!(verbs.contains(&"backends add".to_owned()), "{verbs:?}");
    }

    #[test]
    fn a_page_is_found_however_its_verb_is_written() {
        let name = |verbs: &[&str]| {
            file_name(&verbs.iter().map(|verb| (*verb).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(name(&[]), "mooring.1");
        assert_eq!(name(&["backends", "add"]), "mooring-backends-add.1");
        assert_eq!(name(&["backends add"]), "mooring-backends-add.1");
        assert_eq!(name(&["backends-add"]), "mooring-backends-add.1");
    }

    #[test]
    fn pages_are_written_into_a_folder_that_may_be_new() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("share/man/man1");
        let count = write_pages(&inner).unwrap();
        assert_eq!(fs::read_dir(&inner).unwrap().count(), count);
        // Again, over the old ones.
        assert_eq!(write_pages(&inner), Ok(count));
        let file = inner.join("mooring.1");
        let error = write_pages(&file).unwrap_err();
        assert!(error.starts_with(&format!("cannot write {}: ", file.display())), "{error}");
    }

    fn script(shell: Shell) -> String {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
        String::from_utf8(script).unwrap()
    }

    /// Runs it in a new bash; what it prints. `None` if there is no bash here.
    fn in_bash(arguments: &[&str], script: &str) -> Option<String> {
        let mut bash = Process::new("bash");
        bash.args(["--norc", "--noprofile"]).args(arguments).stdin(Stdio::piped());
        let spawned = bash.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let is_decided = std::env::var_os("CI").is_some_and(|it| !it.is_empty());
        assert!(spawned.is_ok() || !is_decided, "where CI is set, there has to be a bash");
        let mut bash = spawned.ok()?;
        bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let ended = bash.wait_with_output().unwrap();
        assert!(ended.status.success());
        Some(String::from_utf8(ended.stdout).unwrap())
    }

    #[test]
    fn bash_loads_the_completions_and_completes_verbs_flags_and_values() {
        let script = script(Shell::Bash);
        let Some(_checked) = in_bash(&["-n"], &script) else { return };
        let completed = |words: &str, last: usize| {
            let call = format!(
                "\nCOMP_WORDS=({words}); COMP_CWORD={last}\n_mooring mooring \
                 \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last} - 1]}}\"\n\
                 echo \"${{COMPREPLY[*]}}\"\n"
            );
            in_bash(&[], &format!("{script}{call}")).unwrap().trim().to_owned()
        };
        assert_eq!(completed("mooring stat", 1), "status");
        assert_eq!(completed("mooring drain --wa", 2), "--wait");
        assert!(completed("mooring backends ''", 2).contains("remove"));
        assert!(completed("mooring completions z", 2).contains("zsh"));
    }

    #[test]
    fn each_shell_has_its_own_script() {
        assert!(script(Shell::Zsh).starts_with("#compdef mooring"));
        assert!(script(Shell::Fish).contains("complete -c mooring"));
    }
}
