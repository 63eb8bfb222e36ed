//! One turn of a hosted agent, as a program: `murmur-node hosted-turn <request>` posts the prompt to a URL and prints what is answered.
//!
//! A service that takes no call now is asked again while the turn has time.
//!
//! Being a program like any other, it is kept, heard, interrupted and found again like any other; ending it is what ends the call. Where
//! it may call is `outbound`'s to say.

mod again;
mod call;
mod events;
mod request;

use std::path::Path;

use anyhow::Context as _;

pub use request::Hosted;

use super::keeper::plan;

/// Makes the call of a request file and prints the answer, a JSON document on each line.
///
/// # Errors
/// What a person is to read: why there is no answer.
pub fn turn(file: &Path) -> anyhow::Result<()> {
    let request = plan::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let request: Hosted = request.with_context(|| format!("{} is not there", file.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(call::call(&request))
}
