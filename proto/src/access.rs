//! What a caller must hold, read from the contract itself (`option (scope)` on every RPC).

use crate::v1::Scope;

const SCOPES: &[(&str, i32)] = include!(concat!(env!("OUT_DIR"), "/scopes.rs"));

/// The scope of an RPC by its HTTP/2 path, such as `/murmur.v1.AuthService/WhoAmI`; `None` for a path that is not ours.
#[must_use]
pub fn scope_of(path: &str) -> Option<Scope> {
    SCOPES.iter().find(|(known, _)| *known == path).and_then(|(_, number)| Scope::try_from(*number).ok())
}

/// Every RPC of the contract with its scope.
pub fn scopes() -> impl Iterator<Item = (&'static str, Option<Scope>)> {
    SCOPES.iter().map(|(path, number)| (*path, Scope::try_from(*number).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_states_its_scope() {
        let missing: Vec<_> = scopes()
            .filter(|(_, scope)| matches!(scope, None | Some(Scope::Unspecified)))
            .map(|(path, _)| path)
            .collect();
        assert!(missing.is_empty(), "RPCs without `option (scope)`: {missing:?}");
        assert!(scopes().count() > 10, "the table is empty: the build script no longer finds the services");
    }

    #[test]
    fn a_foreign_path_has_none() {
        assert_eq!(scope_of("/grpc.health.v1.Health/Check"), None);
        assert_eq!(scope_of("/murmur.v1.AuthService/WhoAmI"), Some(Scope::Self_));
    }
}
