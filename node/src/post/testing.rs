//! A workspace of nodes without a broker, for tests.
