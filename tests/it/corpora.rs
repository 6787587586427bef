//! The fuzz targets over their committed corpora (`fuzz/corpus`), on the stable compiler.
//!
//! Every file of a corpus is checked, and a few mutations of each that are the same at every run;
//! with `FUZZ_SECONDS` new ones for so long with every target, for machines that have no fuzzer.
//! `fuzz/run` decides which it is.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mooring::net::now;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

#[expect(unreachable_pub, reason = "the same files are a library where the fuzzer runs them")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use targets::{Check, TARGETS};

/// A corpus is small enough to be read by people, and large enough to mean something.
const FILES: std::ops::RangeInclusive<usize> = 10..=120;
const FILE_BYTES_MAX: u64 = 16 << 10;

/// How many mutations of each file are tried each time.
const MUTATIONS: u64 = 4;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The inputs of a target, by file name.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = folder(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let read = |file: fs::DirEntry| {
        let name = file.file_name().into_string().expect("a plain name");
        (name, fs::read(file.path()).expect("readable"))
    };
    files.map(|file| read(file.expect("readable"))).collect()
}

/// What a target says against an input.
fn complaint(check: Check, input: &[u8]) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| check(input))).err()?;
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    Some(text.unwrap_or("a panic without a word").to_owned())
}

#[test]
fn every_corpus_holds() {
    let mut broken = Vec::new();
    for (target, check) in TARGETS {
        let corpus = corpus(target);
        assert!(FILES.contains(&corpus.len()), "{} files in the corpus of {target}", corpus.len());
        for (name, input) in &corpus {
            if let Some(complaint) = complaint(check, input) {
                broken.push(format!("{target}: fuzz/corpus/{target}/{name}: {complaint}"));
            }
            for seed in 0..MUTATIONS {
                let mutated = Mutator::new(seed, &corpus).mutated(input);
                if let Some(complaint) = complaint(check, &mutated) {
                    broken.push(kept(target, name, &mutated, &complaint));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{} inputs\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn a_corpus_is_of_small_files_and_of_no_other_target() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let folders = fs::read_dir(folder("")).expect("there are corpora");
    for folder in folders.map(|folder| folder.expect("readable")) {
        let name = folder.file_name().into_string().expect("a plain name");
        assert!(names.contains(&name.as_str()), "fuzz/corpus/{name} is of no target");
        for file in fs::read_dir(folder.path()).expect("a folder") {
            let file = file.expect("readable");
            let bytes = file.metadata().expect("readable").len();
            assert!(bytes <= FILE_BYTES_MAX, "{:?} has {bytes} bytes", file.path());
        }
    }
}

#[test]
fn each_target_complains_in_words_that_name_what_is_wrong() {
    let wrong: Check = |input| assert!(input.is_empty(), "{} bytes", input.len());
    assert_eq!(complaint(wrong, b""), None);
    assert_eq!(complaint(wrong, b"abc"), Some("3 bytes".to_owned()));
}

/// Without a fuzzer: mutations of the corpora, for `FUZZ_SECONDS` with every target.
#[test]
fn mutations_of_every_corpus_hold() {
    let Ok(seconds) = std::env::var("FUZZ_SECONDS") else { return };
    let each = Duration::from_secs(seconds.parse().expect("FUZZ_SECONDS is a number"));
    let only = std::env::var("FUZZ_TARGETS").unwrap_or_default();
    let is_meant = |name: &str| only.is_empty() || only.split_whitespace().any(|it| it == name);
    for (target, check) in TARGETS.into_iter().filter(|(name, _)| is_meant(name)) {
        let corpus = corpus(target);
        let inputs: Vec<(&String, &Vec<u8>)> = corpus.iter().collect();
        let seed: u64 = rand::random();
        let mut mutator = Mutator::new(seed, &corpus);
        let (began, mut count) = (now(), 0_u64);
        while now().duration_since(began) < each {
            let (name, input) = *inputs.choose(&mut mutator.random).expect("not empty");
            let mutated = mutator.mutated(input);
            count += 1;
            if let Some(complaint) = complaint(check, &mutated) {
                panic!("{}", kept(target, name, &mutated, &complaint));
            }
        }
        println!("{target}: {count} mutations in {} s, none found (seed {seed})", each.as_secs());
    }
}

/// Keeps what breaks a target where it can be run again.
fn kept(target: &str, name: &str, input: &[u8], complaint: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/artifacts").join(target);
    fs::create_dir_all(&folder).expect("a folder can be made");
    let path = folder.join(format!("mutated-{name}"));
    fs::write(&path, input).expect("it can be kept");
    format!("{target}: a mutation of fuzz/corpus/{target}/{name}, kept as {path:?}: {complaint}")
}

/// Changes inputs as a fuzzer without feedback does.
struct Mutator<'a> {
    random: SmallRng,
    all: Vec<&'a [u8]>,
}

impl<'a> Mutator<'a> {
    fn new(seed: u64, corpus: &'a BTreeMap<String, Vec<u8>>) -> Self {
        let all = corpus.values().map(Vec::as_slice).collect();
        Self { random: SmallRng::seed_from_u64(seed), all }
    }

    fn mutated(&mut self, input: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..self.random.random_range(1..=4) {
            self.mutate(&mut bytes);
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.random_range(0..=bytes.len());
        let end = bytes.len().min(at + self.random.random_range(0..=16));
        match self.random.random_range(0..8) {
            0 => bytes.insert(at, self.random.random()),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            4 => {
                // What grammars are made of.
                const MARKS: &[u8] = b"\0\t\n\r \"%&'+,-./0:;<=?[\\]_{|}~\x7f\x80\xff";
                let mark = *MARKS.choose(&mut self.random).expect("not empty");
                bytes.insert(at, mark);
            }
            5 => {
                let other = *self.all.choose(&mut self.random).expect("not empty");
                let from = self.random.random_range(0..=other.len());
                let until = other.len().min(from + self.random.random_range(0..=64));
                drop(bytes.splice(at..end, other[from..until].to_vec()));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.random.random_range(0..8);
                }
            }
        }
    }
}
