//! Which program stands behind an agent's session, so that what that program runs is not taken for the person at a shell
//! (docs/adr/0016-permission-relay.md).
//!
//! A session's process is started by the program that it serves. Whatever has that program above it is its doing: its own tool calls, too.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use murmur_core::id::AgentId;

use super::peer::{ANCESTORS_MAX, Stat};

/// The programs of sessions, by the agents that they speak as.
#[derive(Debug, Default)]
pub struct Clients {
    by_agent: Mutex<HashMap<AgentId, Client>>,
}

/// The program that started a session's process: by number and start, which together are never used twice.
#[derive(Debug, Clone, Copy)]
struct Client {
    session: i32,
    program: (i32, u64),
}

impl Clients {
    /// Notes that a process attaches or asks as an agent.
    pub(super) fn note(&self, agent: AgentId, pid: Option<i32>) {
        let Some(client) = pid.and_then(Client::of) else { return };
        self.by_agent.lock().unwrap_or_else(PoisonError::into_inner).insert(agent, client);
    }

    /// Agents whose programs started a process, at whatever distance.
    pub(super) fn above(&self, pid: Option<i32>) -> Vec<AgentId> {
        let Some(pid) = pid else { return Vec::new() };
        let ancestors = ancestors(pid);
        let by_agent = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        // One process that speaks as several agents answers as whom it says.
        let is_above = |client: &Client| client.session != pid && ancestors.contains(&client.program);
        by_agent.iter().filter(|(_, client)| is_above(client)).map(|(agent, _)| *agent).collect()
    }
}

impl Client {
    fn of(session: i32) -> Option<Self> {
        let program = Stat::of(session)?.parent;
        // A session whose program has ended belongs to nobody.
        let start = Stat::of(program).filter(|_| program > 1)?.start;
        Some(Self { session, program: (program, start) })
    }
}

/// Processes above one, with their starts.
fn ancestors(pid: i32) -> Vec<(i32, u64)> {
    let parent = |pid: i32| Stat::of(pid).map(|stat| stat.parent).filter(|parent| *parent > 1);
    let above = std::iter::successors(parent(pid), |pid| parent(*pid)).take(ANCESTORS_MAX);
    above.filter_map(|pid| Some((pid, Stat::of(pid)?.start))).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::*;

    const A: AgentId = AgentId::from_bytes([1; 16]);

    /// Ends with the test.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A program that started a session and a shell, which started a command: their numbers.
    fn program() -> Option<(Running, i32, i32)> {
        let session = "sh -c 'echo session $$; read _' < /dev/fd/3";
        let command = r#"sh -c 'sh -c "echo command \$\$; read _" < /dev/fd/3; :'"#;
        let mut program = Command::new("sh");
        program.args(["-c", &format!("exec 3<&0; {session} & {command} & wait")]);
        let mut running = Running(program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?);
        let lines: Vec<String> =
            BufReader::new(running.0.stdout.take()?).lines().take(2).collect::<Result<_, _>>().ok()?;
        let pid = |what: &str| lines.iter().find_map(|line| line.strip_prefix(what))?.trim().parse().ok();
        Some((running, pid("session")?, pid("command")?))
    }

    #[test]
    fn what_a_program_runs_is_its_own_doing_and_another_programs_is_not() {
        let (_one, session, command) = program().unwrap();
        let (_other, stranger, _) = program().unwrap();
        let clients = Clients::default();
        clients.note(A, Some(session));
        assert_eq!(clients.above(Some(command)), [A]);
        assert!(clients.above(Some(stranger)).is_empty());
        assert!(clients.above(Some(session)).is_empty(), "the session itself speaks by its name");
        assert!(clients.above(None).is_empty());
    }
}
