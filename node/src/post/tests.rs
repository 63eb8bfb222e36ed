//! The post of two nodes, with the test as their broker.

mod exchange;
mod hostile;
mod letters;
mod order;
mod retry;
mod stream;
mod rotation;
mod two_party;
