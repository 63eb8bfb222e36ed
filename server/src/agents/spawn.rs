//! Spawning: all of a call or nothing of it, in one transaction.

use murmur_core::{
    id::AgentId,
    phase::Phase,
    queue::Kind,
    slug::{AccountName, Caller, Force, Scope, Slug, SlugError, SlugRule, SlugText},
};
use murmur_proto::v1;
use prost::Message as _;

use super::{
    AgentError, Agents,
    each::{One, each},
    find::{Who, parent_of, require_kept, require_open, require_steady, resolved},
    place::{Nodes, place, require_known},
    spec,
    work::Work,
};
use crate::{
    db::{
        account,
        agent_run::{self, AgentRun, Backlog},
    },
    events,
    idempotency::{Once, recall, remember},
    invalid::{Invalid, parse},
    queue::{NewFollowUp, QueueError, push},
    random,
    tasks::add_subjects,
    tokens::Principal,
};

const METHOD: &str = "SpawnAgent";

impl Agents {
    /// Starts an agent below the caller, or one for each line. A repeat with the same key is answered with the same agents.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn spawn(
        &self,
        principal: &Principal,
        request: v1::SpawnAgentRequest,
    ) -> Result<Vec<AgentRun>, AgentError> {
        let once = Once::new(principal, METHOD, &request.idempotency_key, &request.encode_to_vec())?;
        let spec = request.spec.clone().unwrap_or_default();
        let all = each(&request.slug, &spec.description, &request.each)?;
        let mut work = self.begin().await?;
        let who = Who::of(&mut work, principal).await?;
        let now_ms = work.now_ms();
        if let Some(ids) = recall::<Vec<AgentId>>(&mut work, once.as_ref(), now_ms).await? {
            return lives(&mut work, &who, &ids).await;
        }
        require_steady(&who)?;
        let account = account_of(&who, &request.slug)?;
        let mut spawned = Vec::with_capacity(all.len());
        for one in &all {
            spawned.push(self.spawn_one(&mut work, &who, &request, &spec, one).await?);
        }
        // Only what is let in is counted.
        self.check_rate(who.workspace_id, &account)?;
        let ids: Vec<AgentId> = spawned.iter().map(|run| run.agent_id).collect();
        remember(&mut work, once.as_ref(), &ids, now_ms).await?;
        let answer = lives(&mut work, &who, &ids).await?;
        self.commit(work).await?;
        for run in &answer {
            tracing::info!(agent.id = %run.agent_id, agent.slug = %run.slug, "agent {} spawned", run.slug);
        }
        Ok(answer)
    }

    async fn spawn_one(
        &self,
        work: &mut Work,
        who: &Who,
        request: &v1::SpawnAgentRequest,
        spec: &v1::AgentSpec,
        one: &One,
    ) -> Result<AgentRun, AgentError> {
        let slug = target(who, &one.slug)?;
        let spec = v1::AgentSpec { description: one.description.clone(), ..spec.clone() };
        spec::check(&spec)?;
        if request.resurrect && request.force_new {
            return Err(Invalid::new("force_new", "must not be set together with resurrect").into());
        }
        require_open(work, who.workspace_id, &slug).await?;
        if agent_run::live_by_slug(work, who.workspace_id, &slug).await?.is_some() {
            return Err(AgentError::Live(slug));
        }
        let ended = agent_run::ended_by_slug(work, who.workspace_id, &slug).await?;
        let parent = parent_of(work, who.workspace_id, &slug).await?;
        self.require_room(work, who, &slug, parent.as_ref()).await?;
        match ended {
            Some(ended) if request.resurrect => self.resurrect(work, who, ended, &spec, parent).await,
            None if request.resurrect => {
                require_kept(work, who.workspace_id, &slug).await?;
                Err(AgentError::NotFound(slug.to_string()))
            }
            Some(ended) if !request.force_new => Err(AgentError::Ended { slug, phase: ended.phase }),
            Some(_) | None => self.create(work, who, slug, spec, parent, &request.fork_from).await,
        }
    }

    async fn create(
        &self,
        work: &mut Work,
        who: &Who,
        slug: Slug,
        spec: v1::AgentSpec,
        parent: Option<AgentRun>,
        fork_from: &str,
    ) -> Result<AgentRun, AgentError> {
        if spec.description.trim().is_empty() {
            return Err(spec::wrong("description", "must say what is to be done").into());
        }
        let now_ms = work.now_ms();
        let fork = if fork_from.is_empty() { None } else { Some(fork_of(work, who, fork_from, &spec).await?) };
        let mut run = AgentRun {
            agent_id: AgentId::new_v7(now_ms, random::bytes()?),
            workspace_id: who.workspace_id,
            account: slug.account().clone(),
            slug,
            parent_id: parent.as_ref().map(|parent| parent.agent_id),
            interactive: false,
            node_id: fork.as_ref().and_then(|fork| fork.node_id),
            placed: false,
            phase: Phase::Starting,
            rev: 1,
            incarnation: 1,
            reason: String::new(),
            end_as: None,
            end_reason: String::new(),
            current_description: spec.description.clone(),
            deadline_ms: spec::timeout_ms(&spec).map(|ms| now_ms + ms),
            spec,
            fork_from: fork.map(|fork| fork.agent_id),
            progress: None,
            output: None,
            repos: None,
            stuck: false,
            turns: 0,
            exit_code: None,
            created_ms: now_ms,
            phase_ms: now_ms,
            ended_ms: None,
            change: agent_run::next_change(work).await?,
            node_name: String::new(),
            node_version: String::new(),
            parent_slug: parent.map(|parent| parent.slug.to_string()),
            children: 0,
            backlog: Backlog::default(),
        };
        require_known(work, &run).await?;
        account::ensure(work, run.workspace_id, &run.account, now_ms).await?;
        agent_run::insert(work, &run).await?;
        events::registered_by_spawn(work, &run).await?;
        seed(work, &run).await?;
        work.begun(&run).await?;
        place(work, &mut run, &mut Nodes::default()).await?;
        Ok(run)
    }

    async fn resurrect(
        &self,
        work: &mut Work,
        who: &Who,
        mut run: AgentRun,
        spec: &v1::AgentSpec,
        parent: Option<AgentRun>,
    ) -> Result<AgentRun, AgentError> {
        if run.interactive {
            return Err(Invalid::new("resurrect", "must not be set for an agent that registered itself").into());
        }
        run.spec = spec::merged(run.spec, spec);
        run.parent_id = parent.as_ref().map(|parent| parent.agent_id);
        run.parent_slug = parent.map(|parent| parent.slug.to_string());
        run.exit_code = None;
        if !spec.description.is_empty() {
            run.current_description.clone_from(&spec.description);
        }
        events::registered_by_spawn(work, &run).await?;
        seed(work, &run).await?;
        if !spec.description.trim().is_empty() {
            // Behind whatever still waits for it, and safe wherever the agent gets to.
            give(work, &run, who.name(), &spec.description).await?;
        }
        self.start_again(work, &mut run, "resurrected").await?;
        Ok(run)
    }

    /// Starts a new incarnation of an agent that sleeps or has ended, where its history is.
    pub(super) async fn start_again(
        &self,
        work: &mut Work,
        run: &mut AgentRun,
        reason: &str,
    ) -> Result<(), AgentError> {
        run.incarnation += 1;
        run.placed = false;
        run.deadline_ms = spec::timeout_ms(&run.spec).map(|ms| work.now_ms() + ms);
        if run.phase.is_ended() {
            work.revive(run, reason).await?;
        } else {
            work.become_(run, Phase::Starting, reason).await?;
        }
        place(work, run, &mut Nodes::default()).await?;
        Ok(())
    }

    async fn require_room(
        &self,
        work: &mut Work,
        who: &Who,
        slug: &Slug,
        parent: Option<&AgentRun>,
    ) -> Result<(), AgentError> {
        let limit = |name, rule| AgentError::Limit { name, rule, retry_after: None };
        let live = agent_run::count_spawned(work, who.workspace_id, slug.account()).await?;
        if live >= u64::from(self.config.agents_live_max) {
            let max = self.config.agents_live_max;
            return Err(limit("live", format!("{live} agents of {} live, and at most {max} may", slug.account())));
        }
        match parent {
            Some(parent) if parent.children >= self.config.children_max => {
                let max = self.config.children_max;
                Err(limit(
                    "fan-out",
                    format!("{} has {} children, and at most {max} may live", parent.slug, parent.children),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Puts what a resurrected agent is to do now into its queue.
async fn give(work: &mut Work, run: &AgentRun, sender: String, description: &str) -> Result<(), AgentError> {
    let new = NewFollowUp { kind: Kind::Written, description: description.to_owned(), tasks: Vec::new() };
    let now_ms = work.now_ms();
    match push(work, run, sender, new, now_ms).await {
        Ok(_) => Ok(()),
        Err(QueueError::Db(error)) => Err(error.into()),
        Err(QueueError::Random(error)) => Err(error.into()),
        Err(error) => Err(AgentError::Limit { name: "queue", rule: error.to_string(), retry_after: None }),
    }
}

/// Puts the items that came with the spawn into the checklist.
async fn seed(work: &mut Work, run: &AgentRun) -> Result<(), AgentError> {
    let subjects = run.spec.tasks.iter().map(|text| parse("tasks", text)).collect::<Result<Vec<_>, _>>()?;
    let now_ms = work.now_ms();
    add_subjects(work, run.agent_id, &subjects, now_ms).await?;
    Ok(())
}

/// Whose history the new agent begins with; it lies on that one's node.
async fn fork_of(work: &mut Work, who: &Who, text: &str, spec: &v1::AgentSpec) -> Result<AgentRun, AgentError> {
    let fork = resolved(work, who, text).await.map_err(|error| error.of_field("fork_from"))?;
    if fork.interactive || fork.node_id.is_none() {
        return Err(Invalid::new("fork_from", "must be an agent that a node started").into());
    }
    let pinned = [fork.node_name.clone(), fork.node_id.map(|id| id.to_string()).unwrap_or_default()];
    if !spec.node.is_empty() && !pinned.contains(&spec.node) {
        let rule = format!("must be {}, where the history of fork_from is", fork.node_name);
        return Err(spec::wrong("node", rule).into());
    }
    Ok(fork)
}

/// The slug that a text means to somebody who spawns.
fn target(who: &Who, text: &str) -> Result<Slug, AgentError> {
    let deep = |error: SlugError| match error.rule {
        SlugRule::Depth => AgentError::Limit { name: "depth", rule: error.to_string(), retry_after: None },
        _ => Invalid::new("slug", error.to_string()).into(),
    };
    match SlugText::parse(text).map_err(deep)? {
        SlugText::SelfSlug => Err(Invalid::new("slug", "must name the new agent").into()),
        SlugText::Relative { force: Some(Force::Sibling), .. } => {
            Err(Invalid::new("slug", "must lie below the caller, and ../ leads out").into())
        }
        SlugText::Relative { path, .. } => {
            let caller = who.caller().ok_or(AgentError::NoIdentity)?;
            caller.child(&path).map_err(deep)
        }
        SlugText::Absolute { workspace, account, path } => {
            let workspace = workspace.unwrap_or_else(|| who.workspace.clone());
            let slug = Slug::new(workspace, account, path).map_err(deep)?;
            require_below(who, &slug)?;
            Ok(slug)
        }
    }
}

fn require_below(who: &Who, slug: &Slug) -> Result<(), AgentError> {
    let is_below = match who.caller() {
        Some(Caller::Agent { slug: own, .. }) => Scope::below(&own).contains(slug),
        Some(Caller::Human { .. }) | None => who.sees(slug),
    };
    if is_below { Ok(()) } else { Err(AgentError::Denied(format!("{slug} is not below the caller"))) }
}

/// Whose spawns are counted.
fn account_of(who: &Who, slug: &str) -> Result<AccountName, AgentError> {
    if let Some(account) = &who.account {
        return Ok(account.clone());
    }
    match SlugText::parse(&slug.replace("{}", "x")) {
        Ok(SlugText::Absolute { account, .. }) => Ok(account),
        Ok(SlugText::SelfSlug | SlugText::Relative { .. }) => Err(AgentError::NoIdentity),
        Err(error) => Err(Invalid::new("slug", error.to_string()).into()),
    }
}

/// Agents as they stand.
async fn lives(work: &mut Work, who: &Who, ids: &[AgentId]) -> Result<Vec<AgentRun>, AgentError> {
    let mut runs = Vec::with_capacity(ids.len());
    for id in ids {
        runs.extend(agent_run::get(work, who.workspace_id, *id).await?);
    }
    Ok(runs)
}
