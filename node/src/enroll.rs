//! The enroll room of the node.
