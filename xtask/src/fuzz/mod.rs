//! `cargo xtask fuzz`: gives bytes that nobody would send on purpose to everything that reads external bytes.
//!
//! A seed determines the inputs: the same seed and number give the same inputs, for each target separately. A target
//! asserts what must hold for any input. It runs on a thread with the stack of a tokio worker, so that an overflow in
//! the operator is also an overflow here.

mod answers;
mod json;
mod mutate;
mod objects;
mod plans;
mod secrets;

use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::chaos::dice::Dice;
use crate::demo::Result;
use mutate::Mutator;

/// The stack size of tokio's workers, on which the operator reads, in bytes.
const STACK: usize = 2 << 20;
/// An input that takes longer is reported.
const SLOW: Duration = Duration::from_secs(1);
/// An input that takes longer is given up, and the whole run with it.
const ENDLESS: Duration = Duration::from_secs(120);
/// This many brackets may be deep enough to overflow a stack, which ends the process without a message.
const MANY_BRACKETS: usize = 300;

/// A key, and a value of a Secret. No text may show either.
const KEY: &str = "sk-live-0123456789abcdef";
const SECRET: &str = "s3cret-value-0123";

/// A reader of external bytes.
struct Target {
    name: &'static str,
    /// Realistic inputs.
    seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input, and panics if a guarantee is broken. Returns whether the input was read and not refused.
    check: fn(&[u8]) -> bool,
}

fn all() -> impl Iterator<Item = &'static Target> {
    [json::TARGETS, answers::TARGETS, objects::TARGETS, secrets::TARGETS, plans::TARGETS].into_iter().flatten()
}

fn from_texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Whether a text shows a secret outside of its redaction marks.
fn shows(text: &str, secret: &str) -> bool {
    !secret.is_empty() && text.split("[redacted]").any(|rest| rest.contains(secret))
}

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Number of inputs, over all targets.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    inputs: u64,
    /// Seed of the inputs; a random number by default.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Give the targets only the input in this file.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Names of targets; all by default.
    targets: Vec<String>,
}

/// The outcome of one target.
struct Outcome {
    inputs: u64,
    read: u64,
    took: Duration,
    slowest: Duration,
    slow: u64,
    /// What broke, and the file with the input.
    finding: Option<(String, PathBuf)>,
}

/// Runs the targets. Fails if a guarantee was broken.
pub fn run(options: Options) -> Result<()> {
    let known = || all().map(|target| target.name).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = options.targets.iter().find(|name| all().all(|target| target.name != name.as_str())) {
        return Err(format!("there is no target {unknown}; there are {}.", known()).into());
    }
    let is_chosen = |target: &&Target| options.targets.is_empty() || options.targets.iter().any(|it| it == target.name);
    let targets: Vec<&Target> = all().filter(is_chosen).collect();
    let folder = folder()?;
    std::panic::set_hook(Box::new(|panic| {
        LAST_PANIC.with_borrow_mut(|last| *last = panic.to_string());
    }));
    if let Some(file) = &options.replay {
        let input = fs::read(file)?;
        return on_a_workers_stack(move || {
            for target in targets {
                println!("{}: {}", target.name, if (target.check)(&input) { "read" } else { "refused" });
            }
        })
        .map_err(|panic| panic.to_string().into());
    }

    let seed = options.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().1);
    let each = options.inputs / targets.len() as u64;
    println!("Seed {seed}. The same inputs again: cargo xtask fuzz --inputs {} --seed {seed}", options.inputs);
    println!("{:<20}{:>12}{:>12}{:>9}{:>12}", "target", "inputs", "read", "seconds", "slowest ms");
    let (mut findings, mut inputs, begun) = (Vec::new(), 0, Instant::now());
    for target in targets {
        let outcome = fuzz(target, seed, each, &folder)?;
        inputs += outcome.inputs;
        let Outcome { inputs, read, took, slowest, slow, finding } = outcome;
        println!("{:<20}{inputs:>12}{read:>12}{:>9.1}{:>12}", target.name, took.as_secs_f64(), slowest.as_millis());
        if slow > 0 {
            println!("    {slow} inputs took longer than {} s", SLOW.as_secs());
        }
        if let Some((what, file)) = finding {
            let what = what.replace('\n', "\n    ");
            println!("    {what}");
            println!("    again: cargo xtask fuzz --replay {} {}", file.display(), target.name);
            findings.push(target.name);
        }
    }
    println!("{inputs} inputs in {:.0} s, {} findings", begun.elapsed().as_secs_f64(), findings.len());
    if findings.is_empty() {
        Ok(())
    } else {
        Err(format!("found something in {} (seed {seed})", findings.join(", ")).into())
    }
}

thread_local! {
    /// The message of the last panic on this thread.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The folder for inputs of interest.
fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("the folder of this program has no parent")?;
    let folder = target.join("fuzz");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn on_a_workers_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::result::Result<T, String> {
    let work = || catch_unwind(AssertUnwindSafe(work)).map_err(|_| LAST_PANIC.with_borrow(Clone::clone));
    let worker = thread::Builder::new().stack_size(STACK).spawn(work);
    worker.map_err(|error| error.to_string())?.join().unwrap_or_else(|_| Err("the thread is gone".to_owned()))
}

/// The dice of a target, independent of the other targets.
fn dice(seed: u64, name: &str) -> Dice {
    Dice::new(name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Gives inputs to a target until one breaks something.
fn fuzz(target: &'static Target, seed: u64, inputs: u64, folder: &Path) -> Result<Outcome> {
    let file = folder.join(format!("{}-{seed}", target.name));
    let running = folder.join(format!("{}-running", target.name));
    let current: Arc<Mutex<(Instant, Arc<Vec<u8>>)>> = Arc::new(Mutex::new((Instant::now(), Arc::default())));
    let (done, ended) = mpsc::channel();
    let (file_of, running_of, current_of) = (file.clone(), running.clone(), Arc::clone(&current));
    let work = move || {
        let outcome = give(target, seed, inputs, &file_of, &running_of, &current_of);
        // Notify the waiting thread first; it joins afterwards.
        let _ = done.send(());
        outcome
    };
    let worker = thread::Builder::new().name(target.name.into()).stack_size(STACK).spawn(work)?;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_secs(1)) {
        let (since, input) = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if since.elapsed() > ENDLESS {
            fs::write(&file, &*input)?;
            let file = file.display();
            return Err(format!("{}: an input goes on after {ENDLESS:?}: {file}", target.name).into());
        }
    }
    let outcome = worker.join().map_err(|_| format!("{}: the harness itself failed", target.name))??;
    if running.exists() {
        fs::remove_file(running)?;
    }
    Ok(outcome)
}

fn give(
    target: &Target,
    seed: u64,
    inputs: u64,
    file: &Path,
    running: &Path,
    current: &Mutex<(Instant, Arc<Vec<u8>>)>,
) -> std::io::Result<Outcome> {
    let begun = Instant::now();
    let mut mutator = Mutator::new((target.seeds)(), dice(seed, target.name));
    let mut known = mutator.known().into_iter();
    let mut outcome =
        Outcome { inputs: 0, read: 0, took: Duration::ZERO, slowest: Duration::ZERO, slow: 0, finding: None };
    while outcome.inputs < inputs {
        let input = Arc::new(known.next().unwrap_or_else(|| mutator.next()));
        if input.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > MANY_BRACKETS {
            // If the stack overflows, only this file is left.
            fs::write(running, &*input)?;
        }
        let since = Instant::now();
        *current.lock().unwrap_or_else(PoisonError::into_inner) = (since, Arc::clone(&input));
        outcome.inputs += 1;
        match attempt(target, &input) {
            Ok(read) => outcome.read += u64::from(read),
            Err(what) => {
                fs::write(file, shorten(target, &input, &what))?;
                outcome.finding = Some((what, file.to_owned()));
                break;
            }
        }
        let took = since.elapsed();
        outcome.slowest = outcome.slowest.max(took);
        if took > SLOW {
            outcome.slow += 1;
            fs::write(file.with_extension("slow"), &*input)?;
        }
    }
    outcome.took = begun.elapsed();
    Ok(outcome)
}

/// Whether the input was read, or the message of the panic.
fn attempt(target: &Target, input: &[u8]) -> std::result::Result<bool, String> {
    catch_unwind(|| (target.check)(input)).map_err(|_| LAST_PANIC.with_borrow(|last| last.chars().take(2000).collect()))
}

/// A shorter input that breaks the same guarantee, which is easier to read.
fn shorten(target: &Target, input: &[u8], what: &str) -> Vec<u8> {
    // The first line names the place of the panic.
    let place = |what: &str| what.lines().next().unwrap_or_default().to_owned();
    let (begun, mut shortest) = (Instant::now(), input.to_vec());
    let mut size = input.len() / 2;
    while size > 0 && begun.elapsed() < Duration::from_secs(10) {
        let mut at = 0;
        while at < shortest.len() && begun.elapsed() < Duration::from_secs(10) {
            let end = (at + size).min(shortest.len());
            let shorter = [&shortest[..at], &shortest[end..]].concat();
            match attempt(target, &shorter) {
                Err(same) if place(&same) == place(what) => shortest = shorter,
                _ => at = end,
            }
        }
        size /= 2;
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_name_of_its_own_and_reads_some_of_its_seeds() {
        let mut names: Vec<&str> = all().map(|target| target.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for target in all() {
            assert!((target.seeds)().iter().any(|seed| (target.check)(seed)), "{}", target.name);
        }
    }

    #[test]
    fn what_breaks_is_found_and_shortened() {
        let target = Target {
            name: "broken",
            seeds: || vec![br#"{"a":[1,2,3],"b":"text"}"#.to_vec()],
            check: |bytes| {
                assert!(!bytes.windows(3).any(|part| part == b"[[["), "three levels");
                true
            },
        };
        let mut mutator = Mutator::new((target.seeds)(), dice(1, target.name));
        let input = std::iter::repeat_with(|| mutator.next()).find(|input| attempt(&target, input).is_err());
        let input = input.expect("inputs go on");
        let what = attempt(&target, &input).expect_err("it breaks");
        assert_eq!(shorten(&target, &input, &what), b"[[[");
    }
}
