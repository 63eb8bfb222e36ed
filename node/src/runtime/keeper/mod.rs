//! The keeper: one small process for each process of an agent, which outlives the node (docs/adr/0012-agent-processes.md).
//!
//! It starts the program in a process group of its own, writes what the program says into a bounded log, holds its standard input
//! open, ends whatever the program left behind, and writes down how it ended. A node that comes back finds the keeper by the
//! pipe `bell`, which has a writer for exactly as long as the keeper lives: no process id is believed.
//!
//! ```text
//! runs/<n>/plan.json   what to run; written by the node
//! runs/<n>/bell        pipe: a byte for each piece of output, its end for the keeper's end
//! runs/<n>/stdin       pipe to the program, if it takes lines
//! runs/<n>/run.json    which processes run
//! runs/<n>/exit.json   how the program ended
//! output/<n>           the log, in segments
//! ```

mod keep;
pub mod log;
pub mod plan;

pub use keep::keep;
