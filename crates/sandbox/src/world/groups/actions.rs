//! Lifecycle actions: opened with an event each, kept by heartbeats, ended by an answer or by time.

use offramp_core::{GroupName, HookName, HookToken, InstanceId};
use serde_json::json;

use super::{ActionResult, Due, Hook, LifecycleAction, Member, MemberState, Refusal, Transition};
use crate::world::events::TERMINATE_ACTION;
use crate::world::{Due as WorldDue, World};

/// Names a lifecycle action as CompleteLifecycleAction and RecordLifecycleActionHeartbeat do: by its
/// token, or else by its instance.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The group.
    pub group: GroupName,
    /// The hook.
    pub hook: HookName,
    /// The token.
    pub token: Option<HookToken>,
    /// The instance.
    pub instance: Option<InstanceId>,
}

impl World {
    /// CompleteLifecycleAction.
    pub fn complete_action(&mut self, answer: &Answer, result: ActionResult) -> Result<(), Refusal> {
        let (id, token) = self.find_action(answer)?;
        self.tell(format!("{} of {id} is answered with {}", answer.hook, result.as_str()));
        self.close_action(&answer.group, &id, &token, result);
        Ok(())
    }

    /// RecordLifecycleActionHeartbeat: "extends the timeout by the length of time defined using the
    /// HeartbeatTimeout parameter", and never beyond the global timeout.
    pub fn heartbeat(&mut self, answer: &Answer) -> Result<(), Refusal> {
        let (id, token) = self.find_action(answer)?;
        let Some(hook) = self.hook(&answer.group, &answer.hook) else { return Ok(()) };
        let now = self.now;
        let mut until = now;
        self.change_member(&answer.group, &id, |member| {
            for action in member.actions.iter_mut().filter(|action| action.token == token) {
                action.until = action.global_until.min(now + hook.heartbeat_timeout);
                until = action.until;
            }
        });
        self.tell(format!("{} of {id} gets a heartbeat", answer.hook));
        let due = Due::ActionTimeout(answer.group.clone(), id, token);
        self.after(now.until(until), WorldDue::Group(due));
        Ok(())
    }

    /// PutLifecycleHook: makes a hook, or takes the place of the one with its name.
    pub fn put_hook(&mut self, group: &GroupName, hook: Hook) -> Result<(), Refusal> {
        let found = self.groups.groups.get_mut(group).ok_or_else(|| Refusal::NoGroup(group.clone()))?;
        match found.spec.hooks.iter_mut().find(|other| other.name == hook.name) {
            Some(other) => *other = hook,
            None => found.spec.hooks.push(hook),
        }
        Ok(())
    }

    /// DeleteLifecycleHook: the hook's open actions are completed first, for terminating instances with CONTINUE
    /// (ASG API).
    pub fn delete_hook(&mut self, group: &GroupName, name: &HookName) -> Result<(), Refusal> {
        let found = self.groups.get(group).ok_or_else(|| Refusal::NoGroup(group.clone()))?;
        let is_it = |hook: &Hook| hook.name == *name;
        if !found.spec.hooks.iter().any(is_it) {
            return Err(Refusal::NoHook(name.clone()));
        }
        let of_member = |(id, member): (&InstanceId, &Member)| {
            let open = member.actions.iter().find(|action| action.hook == *name)?;
            Some((id.clone(), open.token.clone()))
        };
        let open: Vec<(InstanceId, HookToken)> = found.members.iter().filter_map(of_member).collect();
        for (id, token) in open {
            self.close_action(group, &id, &token, ActionResult::Continue);
        }
        if let Some(found) = self.groups.groups.get_mut(group) {
            found.spec.hooks.retain(|hook| !is_it(hook));
        }
        Ok(())
    }

    /// Whether DescribeLifecycleHooks leaves the hooks out this time.
    pub(crate) fn forgets_hooks(&mut self, group: &GroupName) -> bool {
        let has_hooks = self.groups.get(group).is_some_and(|group| !group.spec.hooks.is_empty());
        if !has_hooks || self.groups.hooks_unseen == 0 {
            return false;
        }
        self.groups.hooks_unseen -= 1;
        self.tell(format!("DescribeLifecycleHooks shows no hook of {group}"));
        true
    }

    /// Opens one action for each terminate hook and sends its event. Without a hook the member ends.
    pub(super) fn open_actions(&mut self, group: &GroupName, id: &InstanceId) {
        let waits = match self.groups.member(group, id).map(|member| member.state) {
            Some(MemberState::Terminating) => MemberState::TerminatingWait,
            Some(MemberState::WarmedPending) => MemberState::WarmedPendingWait,
            _ => return,
        };
        let hooks = self.terminate_hooks(group);
        if hooks.is_empty() {
            let into_pool = waits == MemberState::WarmedPendingWait;
            let state =
                if into_pool { MemberState::WarmedPendingProceed } else { MemberState::TerminatingProceed };
            self.go_on(group, id, state);
            return;
        }
        let now = self.now;
        let mut actions = Vec::new();
        for hook in &hooks {
            actions.push(LifecycleAction {
                hook: hook.name.clone(),
                token: HookToken::new(self.uuid()),
                until: now + hook.heartbeat_timeout,
                global_until: now + hook.global_timeout(),
            });
        }
        self.change_member(group, id, |member| {
            member.state = waits;
            member.actions.clone_from(&actions);
        });
        for (hook, action) in hooks.iter().zip(actions) {
            let destination = if waits == MemberState::TerminatingWait { "EC2" } else { "WarmPool" };
            self.send_action(group, id, hook, &action, destination);
            let due = Due::ActionTimeout(group.clone(), id.clone(), action.token);
            self.after(hook.heartbeat_timeout, WorldDue::Group(due));
        }
    }

    /// Where nobody has answered in time, the hook's default result does.
    pub(super) fn action_timeout(&mut self, group: &GroupName, id: &InstanceId, token: &HookToken) {
        let now = self.now;
        let Some(member) = self.groups.member(group, id) else { return };
        let Some(action) = member.actions.iter().find(|action| action.token == *token) else { return };
        if action.until > now {
            return;
        }
        let name = action.hook.clone();
        let result = self.hook(group, &name).map_or(ActionResult::Abandon, |hook| hook.default_result);
        self.tell(format!("{name} of {id} has timed out: {}", result.as_str()));
        self.close_action(group, id, token, result);
    }

    /// "If you use ABANDON, remaining lifecycle hooks do not run; with CONTINUE they do."
    fn close_action(&mut self, group: &GroupName, id: &InstanceId, token: &HookToken, result: ActionResult) {
        let mut open = true;
        let mut into_pool = false;
        self.change_member(group, id, |member| {
            into_pool = member.state == MemberState::WarmedPendingWait && result == ActionResult::Continue;
            match result {
                ActionResult::Continue => member.actions.retain(|action| action.token != *token),
                ActionResult::Abandon => member.actions.clear(),
            }
            open = !member.actions.is_empty();
        });
        if !open && result == ActionResult::Abandon && self.groups.retains_abandoned {
            self.change_member(group, id, |member| member.state = MemberState::TerminatingRetained);
        } else if !open && into_pool {
            self.go_on(group, id, MemberState::WarmedPendingProceed);
        } else if !open {
            self.proceed(group, id);
        }
    }

    pub(super) fn proceed(&mut self, group: &GroupName, id: &InstanceId) {
        self.go_on(group, id, MemberState::TerminatingProceed);
    }

    fn go_on(&mut self, group: &GroupName, id: &InstanceId, state: MemberState) {
        self.change_member(group, id, |member| member.state = state);
        let due = Due::Proceed(group.clone(), id.clone());
        self.after(self.delays.group_reaction, WorldDue::Group(due));
    }

    fn find_action(&mut self, answer: &Answer) -> Result<(InstanceId, HookToken), Refusal> {
        if self.groups.refused_calls > 0
            && let Some(token) = &answer.token
        {
            self.groups.refused_calls -= 1;
            return Err(Refusal::NoActionWith(token.clone()));
        }
        let group = self.groups.get(&answer.group).ok_or_else(|| Refusal::NoGroup(answer.group.clone()))?;
        let open = group.members.iter().flat_map(|(id, member)| {
            member.actions.iter().filter(|action| action.hook == answer.hook).map(move |a| (id, &a.token))
        });
        let found = |wanted: &dyn Fn(&InstanceId, &HookToken) -> bool| {
            open.clone().find(|(id, token)| wanted(id, token)).map(|(id, token)| (id.clone(), token.clone()))
        };
        match (&answer.token, &answer.instance) {
            (Some(wanted), _) => {
                found(&|_, token| token == wanted).ok_or_else(|| Refusal::NoActionWith(wanted.clone()))
            }
            (None, Some(wanted)) => {
                found(&|id, _| id == wanted).ok_or_else(|| Refusal::NoActionOf(wanted.clone()))
            }
            (None, None) => Err(Refusal::NothingNamed),
        }
    }

    fn hook(&self, group: &GroupName, name: &HookName) -> Option<Hook> {
        self.groups.get(group)?.spec.hooks.iter().find(|hook| hook.name == *name).cloned()
    }

    fn terminate_hooks(&self, group: &GroupName) -> Vec<Hook> {
        let hooks = self.groups.get(group).map(|group| group.spec.hooks.clone()).unwrap_or_default();
        hooks.into_iter().filter(|hook| hook.transition == Transition::Terminating).collect()
    }

    fn send_action(
        &mut self,
        group: &GroupName,
        id: &InstanceId,
        hook: &Hook,
        action: &LifecycleAction,
        destination: &str,
    ) {
        let mut detail = json!({
            "LifecycleActionToken": action.token.as_str(),
            "AutoScalingGroupName": group.as_str(),
            "LifecycleHookName": hook.name.as_str(),
            "EC2InstanceId": id.as_str(),
            "LifecycleTransition": hook.transition.as_str(),
            "Origin": "AutoScalingGroup",
            "Destination": destination,
        });
        if let Some(metadata) = &hook.metadata {
            detail["NotificationMetadata"] = json!(metadata);
        }
        let arn: Vec<String> = self.group_arn(group).into_iter().collect();
        self.emit_event("aws.autoscaling", TERMINATE_ACTION, &arn, &detail);
    }
}
