//! How often one caller may call (PROTOCOL §6.4).

use std::{net::IpAddr, time::Duration};

use crate::{
    limit::{Limiter, Rate, Strangers},
    tokens::RateKey,
};

/// The limiters of the gate.
pub(crate) struct Limits {
    calls: Limiter<RateKey>,
    enrolments: Strangers,
    failures: Strangers,
}

impl Limits {
    /// `calls` a token, `strangers` an address, for enrolments and failed logins each.
    pub(crate) fn new(calls: Rate, strangers: Rate) -> Self {
        Self { calls: Limiter::new(calls), enrolments: Strangers::new(strangers), failures: Strangers::new(strangers) }
    }

    /// A call of somebody who is known; otherwise how long to wait.
    pub(crate) fn call(&self, caller: RateKey) -> Result<(), Duration> {
        self.calls.check(&caller)
    }

    /// A call that anybody may make.
    pub(crate) fn enrolment(&self, from: IpAddr) -> Result<(), Duration> {
        self.enrolments.check(from)
    }

    /// A call with a token that was refused.
    pub(crate) fn failure(&self, from: IpAddr) -> Result<(), Duration> {
        self.failures.check(from)
    }
}
