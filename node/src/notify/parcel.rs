//! What goes to a service in one call.

use std::sync::Arc;

use super::Notice;

/// The kind of the line that says how many notices were dropped.
pub(super) const DROPPED: &str = "dropped";

/// What one call carries.
pub(super) enum Parcel {
    /// Notices, oldest first.
    Lines(Vec<Arc<Notice>>),
    /// A question with a button for each answer.
    Question(Question),
    /// What became of a question, in the place of the message that asked it.
    Outcome {
        /// The permission request.
        number: u64,
        /// The message.
        message_id: i64,
        /// What it says from now on.
        text: String,
    },
}

/// A question.
pub(super) struct Question {
    /// The permission request.
    pub(super) number: u64,
    /// What is asked.
    pub(super) text: String,
    /// What the button that allows carries.
    pub(super) allow: String,
    /// What the button that denies carries.
    pub(super) deny: String,
}

impl Parcel {
    /// How many notices it tells; the line that says how many were dropped is none of them.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Lines(notices) => notices.iter().filter(|notice| notice.kind != DROPPED).count() as u64,
            Self::Question(_) => 1,
            Self::Outcome { .. } => 0,
        }
    }

    /// As a text of a chat.
    pub(super) fn text(&self, include_body: bool) -> String {
        match self {
            Self::Lines(notices) => {
                notices.iter().map(|notice| notice.text(include_body)).collect::<Vec<_>>().join("\n")
            }
            Self::Question(Question { text, .. }) | Self::Outcome { text, .. } => text.clone(),
        }
    }
}
