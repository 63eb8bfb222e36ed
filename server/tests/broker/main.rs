//! The broker's security boundary (PROTOCOL §5.3, §7 item 5), on a real nats-server with the accounts and tokens that the
//! control plane makes.

#[cfg(test)]
mod attack;
#[cfg(test)]
mod boundary;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod headers;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod raw;
