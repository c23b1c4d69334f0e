"""The mutations of mutations.py: what each conclusion of decisions 009, 014 and 015 needs, taken away bit by bit.

An old text stands exactly once in its file. Where the code has changed the script says so: find the new line that
means the same.
"""

from typing import NamedTuple

CORE = "crates/core/src/"
ENGINE = "crates/engine/src/"


class Edit(NamedTuple):
    file: str
    old: str
    new: str


class Mutation(NamedTuple):
    name: str
    edits: tuple[Edit, ...]


def mutation(name: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(name, (Edit(file, old, new),))


MACHINE = CORE + "machine.rs"
HOOK_ACTION = CORE + "hook_action.rs"
HOOK = CORE + "triggers/hook.rs"
SPOT = CORE + "triggers/spot.rs"
ROUTING = ENGINE + "routing.rs"
ROUTE = ENGINE + "job/route.rs"
EVICTIONS = ENGINE + "evictions.rs"
BATCH = ENGINE + "batch.rs"
TICK = ENGINE + "job/tick.rs"
IN_FLIGHT = ENGINE + "job/in_flight.rs"
COMPLETE = CORE + "stages/complete.rs"
STAGES = CORE + "stages.rs"
DRAIN = CORE + "stages/drain.rs"
DEREGISTER = CORE + "stages/deregister.rs"
PODS = CORE + "not_waited_for.rs"
CASE = CORE + "case.rs"
FACTS = CORE + "facts.rs"
GATE = CORE + "gate.rs"
EVICTION = CORE + "eviction.rs"
INTAKE = ENGINE + "intake.rs"
RETRY = ENGINE + "retry.rs"
REPEAT = CORE + "repeat.rs"
LEARNING = ENGINE + "learning.rs"
GAUGES = ENGINE + "gauges.rs"
SKEW = ENGINE + "skew.rs"
UNDO = CORE + "stages/undo.rs"
ENDING = ENGINE + "job/ending.rs"
PORTS = ENGINE + "ports.rs"
OBSERVE = ENGINE + "observe.rs"
GOALS = CORE + "goals.rs"
REBALANCE = CORE + "triggers/rebalance.rs"
NODES = "crates/kubernetes/src/nodes.rs"
PROOF = "crates/kubernetes/src/proof.rs"
MEMORY = CORE + "memory.rs"
SWEEP_HOOKS = ENGINE + "sweep/hooks.rs"
CLUSTER = "crates/kubernetes/src/cluster.rs"
CLUSTER_DOOR = "crates/sandbox/src/doors/ports_kubernetes.rs"
# The replicas of the simulation look through the sandbox's own port, which decides about twins as the adapter does.
VIEW = "crates/kubernetes/src/view.rs"

TABLE = (
    # 014: the machine has ended.
    mutation("machine ended: the group is not asked", MACHINE, "is_given_up(facts) && ", ""),
    mutation("machine ended: the node is not asked", MACHINE, " && is_silent(facts, SILENT)", ""),
    mutation("machine ended: the balancers are not asked", MACHINE, " && serves_nobody(facts)", ""),
    mutation(
        "machine ended: unhealthy from the beginning counts",
        MACHINE,
        "sightings.healthy_at.is_some_and(|at| at >= event)",
        "sightings.healthy_at.is_none_or(|at| at >= event)",
    ),
    mutation(
        "machine ended: our own detach is a witness",
        MACHINE,
        "!job.memory.detached && ",
        "",
    ),
    mutation(
        "machine ended: one empty reading is an absence",
        FACTS,
        "since.is_some_and(|since| self.as_of() >= since + UNLISTED)",
        "since.is_some()",
    ),
    # 009: the hook is answered.
    mutation(
        "hook: one refusal is the end",
        HOOK_ACTION,
        "let ended = if is_past(",
        "let ended = if refused || is_past(",
    ),
    mutation(
        "hook: a 200 is the end",
        HOOK_ACTION,
        "let ended = if is_past(",
        "let ended = if continued || is_past(",
    ),
    mutation(
        "hook: unlisted without a 200 is the end",
        HOOK_ACTION,
        "Seen::Gone => return continued,",
        "Seen::Gone => return true,",
    ),
    mutation(
        "hook: a repeat that is refused at once is the end",
        HOOK_ACTION,
        "no >= taken + REPEAT",
        "no >= taken",
    ),
    mutation("hook: a refused repeat ends the only hook, too", HOOK_ACTION, "repeated && !alone", "repeated"),
    mutation(
        "hook: its time is never over",
        HOOK_ACTION,
        "} else if now >= action_closes_at(notice, hook, facts) {",
        "} else if false {",
    ),
    # 009: the group disagrees.
    mutation(
        "group disagrees: an absence is InService",
        HOOK,
        "Seen::Gone => undecided,",
        "Seen::Gone if !fresh => Entitlement::Undo(UndoReason::InService),\n        Seen::Gone => undecided,",
    ),
    mutation(
        "group disagrees: any other state is InService",
        HOOK,
        "Seen::Known(_) => undecided,",
        "Seen::Known(_) if !fresh => Entitlement::Undo(UndoReason::InService),\n        Seen::Known(_) => undecided,",
    ),
    mutation(
        "group disagrees: an old status is enough for life outside",
        MACHINE,
        "node.renewed_at > absent",
        "node.renewed_at <= absent || node.ready",
    ),
    # 014: foreign.
    mutation(
        "foreign: nodes without an instance are ignored",
        ROUTING,
        " || cluster.doubt(&job.instance).is_some()",
        "",
    ),
    mutation(
        "foreign: a cluster out of sync is ignored",
        ROUTING,
        "cluster.node(&job.instance) == Seen::Unknown || ",
        "",
    ),
    Mutation(
        "foreign: the hold is ignored",
        (
            Edit(
                ROUTE,
                "Route::Foreign | Route::SomebodyElses if now < self.received_at + hold =>",
                "Route::Foreign | Route::SomebodyElses if now < self.received_at =>",
            ),
            Edit(ROUTE, "self.received_at + self.shared.foreign.hold", "self.received_at"),
        ),
    ),
    mutation("no node: no proof is asked for", ROUTE, " && clusters.have_proven(&self.job, by, now)", ""),
    # 014: no Node.
    mutation("no node: timing.no_node is skipped", MACHINE, "else { policy.no_node }", "else { Duration::ZERO }"),
    mutation("no node: the longest grace is skipped", MACHINE, "{ *longest_grace }", "{ Duration::ZERO }"),
    # 015: the node is empty.
    mutation("empty: the watches prove nothing", DRAIN, "if seen.proven < closed_at {", "if false {"),
    mutation(
        "empty: nothing is listed",
        DRAIN,
        "if job.memory.pods_listed.is_some_and(|listed| listed >= closed_at) {",
        "if true {",
    ),
    mutation("empty: a list from before the cordon counts", DRAIN, "|listed| listed >= closed_at", "|_| true"),
    mutation("empty: nothing settles", DRAIN, "record.since + policy.settle", "record.since"),
    # 014: a pod is not waited for.
    mutation("pod: what came back is evicted again", PODS, "if job.memory.came_back(pod) {", "if false {"),
    mutation(
        "pod: one that does not end is waited for",
        PODS,
        ".is_some_and(|at| at <= now)",
        ".is_some_and(|_| false)",
    ),
    mutation("pod: overdue without the minute", PODS, "end.min(by_us)) + OVERDUE)", "end.min(by_us)))"),
    mutation("pod: overdue by the server though its grace was cut", PODS, "granted == Some(pod.grace)", "true"),
    mutation("pod: one from before came back", PODS, "pod.created >= self.at.whole_second()", "true"),
    # 014: the node cannot be written.
    mutation("unwritable: after the first refusal", CASE, "last >= first + refused", "last >= first"),
    mutation(
        "unwritable: never",
        CASE,
        "unwritten.is_some_and(|Unwritten",
        "false && unwritten.is_some_and(|Unwritten",
    ),
    mutation("unwritable: what does not last counts as written", CASE, "(is_refused || is_undone)", "is_refused"),
    mutation(
        "brake: a cordon that is taken off, without growing pauses",
        LEARNING,
        "until: now + pause }",
        "until: now }",
    ),
    # 014: two nodes, one instance.
    mutation(
        "twins: the first of two is taken (sandbox)",
        CLUSTER_DOOR,
        "[_, _, ..] => Seen::Unknown,",
        "[first, ..] => Seen::Known(node(first, now)),",
    ),
    mutation("twins: the first of two is taken (adapter)", VIEW, " || state.ready_nodes(instance) > 1", ""),
    mutation(
        "twins: the first of two clusters is taken",
        ROUTING,
        "if self.is_claimed_twice(job) {",
        "if false {",
    ),
    # 5.1: a target group is gone, time.
    mutation(
        "target group gone: after one reading",
        FACTS,
        "|group| self.targets_as_of() < since(group) + TWO_READINGS",
        "|_| false",
    ),
    mutation(
        "time: an event may lie in the future",
        INTAKE,
        "notice.at.min(message.sent_at.unwrap_or(now) + AHEAD)",
        "notice.at",
    ),
    # What is done again rests before that.
    mutation(
        "brake: answers that are taken, without growing pauses",
        RETRY,
        "doubled(CONFIRMATION)",
        "CONFIRMATION",
    ),
    mutation("brake: calls about a hook, without growing pauses", RETRY, "doubled(HOOK)", "HOOK"),
    mutation("brake: calls about a hook, without a pause", RETRY, "doubled(HOOK)", "Duration::ZERO"),
    mutation(
        "brake: refused writes to a node, without growing pauses",
        RETRY,
        "grown(NODE_REFUSED, NODE_REFUSED_DOUBLINGS)",
        "NODE_REFUSED",
    ),
    mutation(
        "brake: refused writes to a node, without a pause",
        RETRY,
        "grown(NODE_REFUSED, NODE_REFUSED_DOUBLINGS)",
        "Duration::ZERO",
    ),
    mutation("brake: writes to AWS, without a pause", RETRY, "doubled(WRITE)", "Duration::ZERO"),
    mutation("brake: writes to AWS, without growing pauses", RETRY, "doubled(WRITE)", "WRITE"),
    mutation(
        "brake: what is put back, without growing pauses",
        RETRY,
        "grown(DEREGISTERED, DEREGISTERED_DOUBLINGS)",
        "DEREGISTERED",
    ),
    mutation(
        "brake: a target that leaves is deregistered again",
        DEREGISTER,
        "case.staying()",
        "case.registered()",
    ),
    mutation("brake: evictions, without a pause", RETRY, "EVICTION * 2_u32", "Duration::ZERO * 2_u32"),
    mutation(
        "brake: evictions, without growing pauses",
        RETRY,
        "EVICTION * 2_u32.pow(times.saturating_sub(1).min(DOUBLINGS))",
        "EVICTION * 2_u32.pow(times.min(0))",
    ),
    mutation("brake: every pod asks its budget", EVICTIONS, "refusal.window = 1;", "refusal.window = 1_000;"),
    mutation(
        "brake: always the same pod asks",
        EVICTIONS,
        "get(&wish.pod.uid).copied()",
        "first_key_value().and(None)",
    ),
    mutation(
        "brake: pods like one that is refused ask for themselves",
        EVICTIONS,
        "self.refusals.contains_key(&own) { Some(own) } else { of_origin.cloned() }",
        "self.refusals.contains_key(&own) { Some(own) } else { of_origin.cloned().filter(|_| false) }",
    ),
    mutation(
        "brake: refused evictions rest by their pods",
        EVICTIONS,
        "Key::Budget(namespace, budget.clone())",
        "Key::Pod(PodUid::new(format!(\"{namespace}{budget:?}{}\", pod.uid)))",
    ),
    mutation("brake: nothing ends the rest of a budget", EVICTIONS, ".max(now + COUNTED)", ".max(refusal.until)"),
    mutation(
        "brake: what was taken is asked for again on an older view",
        EVICTION,
        "answer.asked_at <= facts.seen.proven",
        "true",
    ),
    # 019: what reviews and reports found.
    mutation("reads: without a rest after failures", BATCH, "is_read && answers.iter().all(Result::is_err)", "false"),
    mutation("reads: an answer from before the event", BATCH, "*since <= asked_at", "true"),
    mutation(
        "reads: as many at once as there are",
        BATCH,
        "pace.in_flight >= IN_FLIGHT {\n            return",
        "false {\n            return",
    ),
    mutation("evictions: the window without an end", EVICTIONS, "(refusal.window * 2).min(MOST)", "refusal.window * 2"),
    mutation("evictions: labels do not count", EVICTIONS, "wish.labels_hash, alone)", "0, alone)"),
    mutation("evictions: readiness does not count", EVICTIONS, "(!wish.is_ready).then", "false.then"),
    mutation("evictions: a notice that joins moves nothing", TICK, "self.pressure != pressure", "false"),
    mutation(
        "pod: told before its budget is asked",
        EVICTION,
        "Rung::Force(grace) if !is_refused",
        "Rung::Force(grace) if false",
    ),
    mutation(
        "pod: no budget is asked ahead",
        EVICTION,
        "is_near = ahead.is_some_and(|ahead| ahead <= facts.now);",
        "",
    ),
    mutation(
        "undo: by a reading from before our call",
        UNDO,
        "case.staying()",
        "case.registered()",
    ),
    mutation(
        "brake: a pod in the place of one whose eviction is not answered",
        IN_FLIGHT,
        "self.has_returned(&pod.uid, seen)",
        "false",
    ),
    mutation("stand-ins: whatever has changed", ENGINE + "stand_ins.rs", "&& self.versions == other.versions", ""),
    mutation("stand-ins: a departure is not counted", ENGINE + "departures.rs", "            told.changes += 1;\n", ""),
    mutation(
        "stand-ins: a node is not counted",
        VIEW,
        "state.nodes_version += u64::from(touched != Touched::Nothing);",
        "",
    ),
    mutation("targets: what was taken out serves on", ENGINE + "observe.rs", "|since| *since > read_at", "|_| false"),
    mutation(
        "targets: as old as what Auto Scaling says",
        LEARNING,
        "let read_at = seen.targets_read_at.map_or(now, |read_at| read_at.min(now));",
        "let read_at = seen.as_of(now);",
    ),
    mutation(
        "undo: while a deregistration is under way",
        IN_FLIGHT,
        "self.begun.keys().any(|(key, _)| matches!(key, Key::Deregistration(_)))",
        "false",
    ),
    mutation(
        "answer: waits for readings past its deadline",
        COMPLETE,
        "|deadline| deadline.answer > now);\n    let reads",
        "|_| true);\n    let reads",
    ),
    mutation(
        "answer: a reading that is always newer",
        STAGES,
        "facts.job.memory.reading_since.unwrap_or(facts.now)",
        "facts.now",
    ),
    mutation("hook: kept open and never served", HOOK, "is_open && now >= notice.at + policy.hook_limit / 2", "false"),
    mutation("hook: in service by an old reading", HOOK, "facts.as_of() > notice.at + FRESH =>", "!fresh =>"),
    mutation("left: what was not read", CASE, "self.facts.unread_target_groups().max(usize::from(nothing_read))", "0"),
    mutation("left: what we took out", CASE, "targets: self.staying().len()", "targets: self.registered().len()"),
    mutation(
        "gate: past the deadline",
        DEREGISTER,
        "taken_up.min(latest);",
        "taken_up.min(latest).max(first + policy.gate_limit);",
    ),
    mutation(
        "told: isolated when it is answered",
        TICK,
        "self.in_flight.isolates() && is_isolated",
        "false && is_isolated",
    ),
    mutation("evictions: before the cordons", EVICTIONS, "held_until.is_some() || ", ""),
    mutation(
        "answer: on old readings",
        STAGES,
        "(facts.as_of() < oldest).then_some",
        "(false && facts.as_of() < oldest).then_some",
    ),
    mutation("brake: refused deletions, without a pause", RETRY, "doubled(DELETION)", "Duration::ZERO"),
    mutation(
        "brake: lists of pods, without a pause",
        RETRY,
        "grown(POD_LIST, REFUSED_DOUBLINGS)",
        "Duration::ZERO",
    ),
    mutation(
        "brake: writes that no watch has shown, without a pause",
        RETRY,
        "Pause::NodeUnshown => grown(WATCH_LAG, UNSHOWN_DOUBLINGS)",
        "Pause::NodeUnshown => Duration::ZERO",
    ),
    mutation(
        "brake: writes that no watch has shown, always as soon",
        RETRY,
        "Pause::NodeUnshown => grown(WATCH_LAG, UNSHOWN_DOUBLINGS)",
        "Pause::NodeUnshown => WATCH_LAG",
    ),
    mutation(
        "brake: writes that come too late, without a pause",
        RETRY,
        "Pause::NodeConflict if times <= CONFLICTS => ",
        "Pause::NodeConflict if times < u32::MAX => ",
    ),
    mutation("brake: pods that look older, without end", PODS, "ends.accepted >= NODEFUL", "false"),
    mutation(
        "hook: deleted in one reading",
        HOOK_ACTION,
        "missing_since.is_some_and(|since| now >= *since + FRESH)",
        "missing_since.is_some()",
    ),
    mutation(
        "machine ended: a kubelet that is not Ready is silent",
        MACHINE,
        "node.silent.then_some",
        "(!node.ready).then_some",
    ),
    # Spot, and the gate.
    mutation("spot: stale at once", SPOT, "notice.at + LEAD + STALE", "notice.at + LEAD"),
    mutation(
        "spot: a kubelet that works on is no witness",
        SPOT,
        "Seen::Known(node) if node.ready =>",
        "Seen::Known(node) if node.ready && false =>",
    ),
    mutation(
        "gate: always open",
        DEREGISTER,
        "now >= shown_at, seen)?",
        "now >= shown_at, seen).filter(|_| false)?",
    ),
    mutation(
        "gate: whoever leaves is counted on",
        GATE,
        "is_shown && (since, &other.instance) > turn",
        "since >= turn.0 || since < turn.0",
    ),
    mutation("gate: before its own cordon shows", GATE, "is_shown && ", ""),
    mutation(
        "gate: whoever has passed it is counted on",
        PORTS,
        "node.record.as_ref().filter(|_| !node.excluded)",
        "node.record.as_ref()",
    ),
    mutation("gate: whom the group ends is counted on", OBSERVE, "node.set_aside || is_ended", "node.set_aside"),
    mutation(
        "gate: whose job is here is counted on",
        OBSERVE,
        "node.leaving_since.or_else(departure)",
        "node.leaving_since",
    ),
    mutation(
        "gate: nodes out of sync are counted on",
        OBSERVE,
        "cluster.map_or_else(|| clusters.iter().any(is_unknown), is_unknown)",
        "false",
    ),
    # 5: every job ends, and says how.
    mutation(
        "outcome: a hook that ended without us is left",
        HOOK_ACTION,
        "match may_be_ours(notice, hook, job) {\n        true => ended,",
        "match may_be_ours(notice, hook, job) {\n        _ => ended,",
    ),
    mutation(
        "outcome: a late copy of an answered hook alarms",
        HOOK_ACTION,
        "false if was_open || ",
        "false if true || was_open || ",
    ),
    mutation("undo: without end", GOALS, "since + policy.patience * 3", "since + policy.patience * 3_000"),
    mutation(
        "undo: one unread source begins it anew",
        LEARNING,
        "Goal::Leave if is_read =>",
        "Goal::Leave if true || is_read =>",
    ),
    mutation(
        "undo: a record that is wiped off is forgotten",
        CASE,
        ".or(self.facts.job.memory.sightings.recorded.as_ref())?",
        "?",
    ),
    mutation("brake: a label that is taken off", LEARNING, "node.excluded || !record.excluded", "true"),
    mutation(
        "gate: a backlog is not held",
        DEREGISTER,
        "first.max(leaving_since) + policy.gate_limit",
        "first + policy.gate_limit",
    ),
    mutation(
        "gate: a group that fails open is not held",
        "crates/core/src/observation.rs",
        "health == Healthy || self.fails_open &&",
        "health == Healthy || false &&",
    ),
    mutation(
        "view: a machine that takes a Node over is the old one",
        VIEW,
        "if node.is_reused {",
        "if false && node.is_reused {",
    ),
    mutation(
        "view: deleted nodes of others are remembered",
        VIEW,
        "if !(ours && self.synced.pods) {",
        "if !ours && false {",
    ),
    mutation(
        "undo: its time begins with the event",
        UNDO,
        "job.memory.returning_since.unwrap_or(now)",
        "job.since()",
    ),
    mutation("recommendation: served instances are waited for", REBALANCE, "machine::is_gone(facts)", "false"),
    # 21: what a view shows.
    mutation("view: the clock of a kubelet is believed", NODES, "Some(_) if !may_be_old => self.read_at,", ""),
    mutation("view: versions that go back are believed", PROOF, "version < shown_before", "false"),
    mutation("view: deleted nodes are forgotten", ROUTE, "self.node_seen = true;\n            learning", "learning"),
    # 5.1 "Time": the clock is moved by answers that agree, and not under a removal.
    mutation("clock: answers that differ", SKEW, "spread <= AGREEMENT_MILLIS", "spread >= 0"),
    mutation("clock: never moved", SKEW, "(behind.abs_diff(offset) > ", "(behind.abs_diff(offset) > u64::MAX - "),
    mutation(
        "clock: moved under a removal",
        GAUGES,
        "(self.agreed || self.handle.jobs().await.is_empty())",
        "true",
    ),
    mutation(
        "undo: targets of a node that does not serve",
        UNDO,
        "!seen.node.known().is_some_and(Node::serves)",
        "seen.node.known().is_none()",
    ),
    mutation(
        "outcome: whatever is left, it has left",
        ENDING,
        "remainder.filter(|remainder| !remainder.is_empty())",
        "remainder.filter(|_| false)",
    ),
    # What 100,000 worlds showed.
    mutation(
        "brake: a node that is gone is written at once",
        REPEAT,
        "Ok(Outcome::Done | Outcome::Changed | Outcome::Gone) => Pause::NodeUnshown,",
        "Ok(Outcome::Done | Outcome::Changed) => Pause::NodeUnshown, Ok(Outcome::Gone) => return Repeat::Never,",
    ),
    mutation("brake: a lost answer counts for nothing", LEARNING, "        learn_of_unanswered(memory, pods);\n", ""),
    mutation("node: what another one refused counts", LEARNING, "        forget_node(memory);\n", ""),
    Mutation(
        "node: not read after a 409",
        (
            Edit(CLUSTER, "if outcome == Ok(Outcome::Changed) {", "if false {"),
            Edit(CLUSTER_DOOR, "                self.read_node(node).await;\n", ""),
        ),
    ),
    mutation(
        "empty: a node that never shows its cordon",
        MEMORY,
        "self.isolation_tried.filter(|_| self.sightings.open_since.is_some())",
        "None",
    ),
    mutation(
        "sweep: blind for twins",
        SWEEP_HOOKS,
        "self.sweep.clusters.torn(instance)?",
        "self.sweep.clusters.torn(instance).filter(|_| false)?",
    ),
    mutation(
        "hook: a lost heartbeat was not taken",
        HOOK_ACTION,
        "heard.max(unheard)",
        "heard.max(unheard.filter(|_| false))",
    ),
    mutation("undo: in any cluster", ROUTING, "named.or_else(|| self.recorded(job))", "named"),
)
