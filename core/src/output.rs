//! Places in what an agent's processes and its node said.

use std::{fmt, str::FromStr};

/// Where a watcher of output is: segment and offset in the log of the processes and in that of the notes. Whoever holds one does not look
/// into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputPosition {
    /// In what the processes said.
    pub output: (u64, u64),
    /// In what the node noted.
    pub notes: (u64, u64),
}

/// A text that is no [`OutputPosition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a resume_token as a chunk of output had it")]
pub struct OutputPositionError;

impl fmt::Display for OutputPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { output, notes } = self;
        write!(f, "{}.{}.{}.{}", output.0, output.1, notes.0, notes.1)
    }
}

impl FromStr for OutputPosition {
    type Err = OutputPositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('.').map(|number| number.parse::<u64>().map_err(|_| OutputPositionError));
        let mut next = || numbers.next().unwrap_or(Err(OutputPositionError));
        let position = Self { output: (next()?, next()?), notes: (next()?, next()?) };
        if numbers.next().is_some() { Err(OutputPositionError) } else { Ok(position) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_nothing_else_is_one() {
        let position = OutputPosition { output: (3, 17), notes: (0, u64::MAX) };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.x", "1.2.3.-4", "1..2.3", "18446744073709551616.0.0.0"] {
            assert_eq!(text.parse::<OutputPosition>(), Err(OutputPositionError), "{text}");
        }
    }
}
