//! Sets of scopes.

use std::{fmt, str::FromStr};

use murmur_proto::v1::Scope;

/// A word in the database that is no scope of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope")]
pub struct UnknownScope;

/// What a token may do. `SCOPE_ADMIN` includes everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// Whether the set allows what needs `scope`.
    #[must_use]
    pub fn allows(self, scope: Scope) -> bool {
        self.holds(Scope::Admin) || self.holds(scope)
    }

    /// Whether everything in `other` is allowed by this set.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.iter().all(|scope| self.allows(scope))
    }

    /// The scopes, in the contract's order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        (0..32).filter_map(|number| Scope::try_from(number).ok()).filter(move |scope| self.holds(*scope))
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn holds(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u32) != 0
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u32))
    }
}

impl fmt::Display for ScopeSet {
    /// One name a line, as stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for scope in self.iter() {
            writeln!(f, "{}", scope.as_str_name())?;
        }
        Ok(())
    }
}

impl FromStr for ScopeSet {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.lines().map(|name| Scope::from_str_name(name).ok_or(UnknownScope)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_set_reads_back() {
        let set: ScopeSet = [Scope::DirectoryRead, Scope::Node].into_iter().collect();
        assert_eq!(set.to_string().parse(), Ok(set));
        assert_eq!("SCOPE_NOPE".parse::<ScopeSet>(), Err(UnknownScope));
    }

    #[test]
    fn the_administrator_may_everything_and_nobody_else_may_that() {
        let admin: ScopeSet = [Scope::Admin].into_iter().collect();
        let reader: ScopeSet = [Scope::DirectoryRead].into_iter().collect();
        assert!(admin.covers(reader) && !reader.covers(admin) && !reader.allows(Scope::TokensIssue));
    }
}
