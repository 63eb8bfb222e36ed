//! The post of two nodes, with the test as their broker.

mod exchange;
mod hostile;
mod letters;
mod order;
mod retry;
mod rotation;
mod stream;
mod two_party;
