//! The control plane as its callers see it: a real port, a real database, real certificates.

mod access;
mod enrolment;
mod keys;
mod pages;
mod sessions;
mod slugs;
mod watching;
mod world;
