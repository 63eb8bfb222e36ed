//! Random operations from several callers against the real control plane and against a simple model of phases, queues and checklists.
//! After each of them both must have answered the same, and whatever can be read of the agent must be the same.
//!
//! The seed is printed. `MURMUR_MODEL_SEED` runs one again, `MURMUR_MODEL_CASES` more of them.

mod life;
mod op;
mod real;
mod state;

use std::{
    collections::BTreeMap,
    env,
    sync::{Mutex, PoisonError},
};

use murmur_core::{checklist::Status, phase::Phase, queue::DequeueStrategy, reason::Reason};
use proptest::{
    collection::vec,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use self::{
    life::Life,
    op::{By, Edit, Op, PATHS, REGISTERED, op},
    real::Real,
    state::{Model, fitting},
};

const OPS: usize = 250;
const CASES: u32 = 4;

/// How often each operation was answered how.
type Seen = Mutex<BTreeMap<String, u32>>;

#[test]
fn the_control_plane_does_what_the_model_does() {
    let seed = match env::var("MURMUR_MODEL_SEED") {
        Ok(text) => text.parse().expect("MURMUR_MODEL_SEED is a number"),
        Err(_) => {
            let mut seed = [0; 8];
            getrandom::fill(&mut seed).unwrap();
            u64::from_le_bytes(seed)
        }
    };
    let cases = env::var("MURMUR_MODEL_CASES").map_or(CASES, |text| text.parse().expect("a number of cases"));
    eprintln!("MURMUR_MODEL_SEED={seed} MURMUR_MODEL_CASES={cases}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let seen = Seen::default();
    let result = runner.run(&vec(op(), OPS), |ops| {
        runtime.block_on(run(ops, &seen));
        Ok(())
    });
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (answer, count) in &seen {
        eprintln!("{count:6} {answer}");
    }
    if let Err(failed) = result {
        panic!("MURMUR_MODEL_SEED={seed}: {failed}");
    }
    // A model that agrees because nothing ever happens would agree with anything.
    for op in ["Create", "Update", "Add", "Claim", "Complete", "Spawn", "Report", "Kill", "Wait"] {
        assert!(seen.contains_key(&format!("{op} done")), "no {op} was ever done");
    }
}

async fn run(ops: Vec<Op>, seen: &Seen) {
    let mut real = Box::pin(Real::start()).await;
    let mut model = Model::new(real.world.now_ms(), Life::new(REGISTERED, true, DequeueStrategy::Auto));
    for (index, op) in beginning().into_iter().chain(ops.into_iter().map(fitting)).enumerate() {
        let (text, who) = (text_of(&op, index), caller(&model, &op));
        // The turn that is claimed gets its number from the model, so the model goes first.
        let expected = model.apply(&op, &text);
        note(seen, &op, expected.as_ref().err());
        let answer = real.apply(&model, who, &op, &text).await;
        assert_eq!(answer, expected, "operation {index}: {op:?} of {who:?}");
        match place(&op) {
            Some(at) if index % 10 > 0 => real.compare(&model, at).await,
            _ => {
                for at in 0..PATHS.len() {
                    real.compare(&model, at).await;
                }
            }
        }
    }
    real.stop().await;
}

/// What every case begins with: an agent that has something to do, after another whose life is over soon. Which of the rest is refused
/// is chance, so that what has to happen at all is here.
fn beginning() -> Vec<Op> {
    let (by, at, dequeue) = (By::Owner, 0, DequeueStrategy::Five);
    let create = || Op::Create { by, at, pattern: None, key: None };
    let done = Edit { status: Some(Status::Completed), ..Edit::default() };
    let short = PATHS.iter().position(|path| *path == "e").unwrap();
    vec![
        Op::Spawn { by, at: short, tasks: 0, dequeue, resurrect: false, force_new: false },
        Op::Kill { by, at: short },
        Op::Wait { at: short, phases: Vec::new() },
        Op::Spawn { by, at, tasks: 1, dequeue, resurrect: false, force_new: false },
        Op::Report { at, phase: Phase::Running, stale: false },
        create(),
        create(),
        Op::Update { by, at, task: 1, edit: done, key: None },
        Op::Add { by, at, tasks: 1, key: None },
        Op::Claim { at, stale: false },
        Op::Complete { at, back: 0, stale: false },
    ]
}

fn note(seen: &Seen, op: &Op, refused: Option<&Reason>) {
    let name = format!("{op:?}");
    let name = name.split_once(' ').map_or(name.as_str(), |(name, _)| name);
    let answer = refused.map_or("done", |reason| reason.as_str());
    *seen.lock().unwrap_or_else(PoisonError::into_inner).entry(format!("{name} {answer}")).or_default() += 1;
}

/// What is written; the same for every use of a key, so that some of them are repeats.
fn text_of(op: &Op, index: usize) -> String {
    match op {
        Op::Create { key: Some(key), .. } | Op::Add { key: Some(key), .. } => format!("with key {key}"),
        _ => format!("number {index}"),
    }
}

fn caller(model: &Model, op: &Op) -> state::Who {
    match op {
        Op::Create { by, .. }
        | Op::Update { by, .. }
        | Op::Add { by, .. }
        | Op::Clear { by, .. }
        | Op::Spawn { by, .. }
        | Op::Kill { by, .. } => model.who(*by),
        Op::FilesChanged { .. }
        | Op::Claim { .. }
        | Op::Complete { .. }
        | Op::Report { .. }
        | Op::Wait { .. }
        | Op::Advance { .. } => state::Who::Owner,
    }
}

/// Where the operation is; a kill is in several places.
fn place(op: &Op) -> Option<usize> {
    match op {
        Op::Create { at, .. }
        | Op::Update { at, .. }
        | Op::FilesChanged { at, .. }
        | Op::Add { at, .. }
        | Op::Clear { at, .. }
        | Op::Claim { at, .. }
        | Op::Complete { at, .. }
        | Op::Spawn { at, .. }
        | Op::Report { at, .. }
        | Op::Wait { at, .. } => Some(*at),
        Op::Kill { .. } | Op::Advance { .. } => None,
    }
}
