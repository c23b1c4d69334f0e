//! EC2: instances that start, are warned, and end.
//!
//! Liberties: an interrupted instance is always terminated, whatever `instance-action` announced (stop and
//! hibernate end it too, hibernate without the two minutes); what a warm pool stops is stopped at once, and starts in the time
//! of a launch.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use offramp_core::{ClusterName, GroupName, InstanceId, SpotAction, Timestamp, Zone};
use serde_json::json;

use super::events::{REBALANCE, SPOT_WARNING, STATE_CHANGE};
use super::{Due as WorldDue, World};

/// From a spot notice to the moment when EC2 begins to shut the instance down (EC2 UG
/// `spot-instance-termination-notices.html`).
pub const SPOT_NOTICE: Duration = Duration::from_secs(120);

/// Every instance there ever was.
#[derive(Debug, Default)]
pub struct Instances {
    instances: BTreeMap<InstanceId, Instance>,
}

/// One instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its zone.
    pub zone: Zone,
    /// Its private address.
    pub private_ip: Ipv4Addr,
    /// It is a spot instance.
    pub spot: bool,
    /// Where it is in its life.
    pub state: InstanceState,
    /// The Auto Scaling group that it is a member of.
    pub group: Option<GroupName>,
    /// The cluster that it joins.
    pub cluster: Option<ClusterName>,
    /// Labels that its node gets besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// When it was launched.
    pub launched: Timestamp,
    /// When EC2 begins to take it back.
    pub interrupted_at: Option<Timestamp>,
}

/// The states of an instance (EC2 UG `ec2-instance-lifecycle.html`), without `stopping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Not there yet.
    Pending,
    /// There.
    Running,
    /// Off, to be started again.
    Stopped,
    /// Ending: network and pods end during it.
    ShuttingDown,
    /// Gone.
    Terminated,
}

impl InstanceState {
    /// The word that EC2 uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }
}

/// What to launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The zone.
    pub zone: Zone,
    /// As a spot instance.
    pub spot: bool,
    /// Into this group.
    pub group: Option<GroupName>,
    /// Into this cluster.
    pub cluster: Option<ClusterName>,
    /// With these node labels.
    pub labels: BTreeMap<String, String>,
}

/// What instances are waiting for.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    Running(InstanceId),
    ShutdownBegins(InstanceId),
    Terminated(InstanceId),
}

impl Instances {
    /// Whether the id is taken.
    pub fn exists(&self, id: &InstanceId) -> bool {
        self.instances.contains_key(id)
    }

    /// One instance, also one that is gone.
    pub fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    /// Every instance by id.
    pub fn all(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// Whether it is in this state.
    pub fn is(&self, id: &InstanceId, state: InstanceState) -> bool {
        self.get(id).is_some_and(|instance| instance.state == state)
    }

    pub(crate) fn leave_group(&mut self, id: &InstanceId) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.group = None;
        }
    }
}

impl World {
    /// Launches an instance: it runs, and its node is Ready, after the launch delay.
    pub fn launch(&mut self, launch: Launch) -> InstanceId {
        let id = self.instance_id();
        let number = u32::try_from(self.instances.instances.len()).unwrap_or(0) + 10;
        let Launch { zone, spot, group, cluster, labels } = launch;
        let instance = Instance {
            id: id.clone(),
            zone,
            // 10.0.0.0/8 and upwards: as many addresses as a world can need.
            private_ip: Ipv4Addr::from(0x0a00_0000 + number),
            spot,
            state: InstanceState::Pending,
            group,
            cluster,
            labels,
            launched: self.now,
            interrupted_at: None,
        };
        self.instances.instances.insert(id.clone(), instance);
        self.tell(format!("{id} is launched"));
        self.after(self.delays.launch, WorldDue::Instance(Due::Running(id.clone())));
        id
    }

    /// EC2 takes a spot instance back: the warning now, and the shutdown begins 120 s later. "For
    /// hibernate no lead time". False where the instance does not run.
    pub fn spot_interrupt(&mut self, id: &InstanceId, action: SpotAction) -> bool {
        let now = self.now;
        let Some(instance) = self.instances.instances.get_mut(id) else { return false };
        if instance.state != InstanceState::Running || instance.interrupted_at.is_some() {
            return false;
        }
        let (word, lead) = match action {
            SpotAction::Terminate => ("terminate", SPOT_NOTICE),
            SpotAction::Stop => ("stop", SPOT_NOTICE),
            SpotAction::Hibernate => ("hibernate", Duration::ZERO),
        };
        instance.interrupted_at = Some(now + lead);
        // The documented form, with the zone in the place of the Region and without an account.
        let arn = format!("arn:aws:ec2:{}:instance/{id}", instance.zone);
        self.tell(format!("{id} gets a spot interruption warning ({word})"));
        let detail = json!({ "instance-id": id.as_str(), "instance-action": word });
        self.emit_event("aws.ec2", SPOT_WARNING, &[arn], &detail);
        self.after(lead, WorldDue::Instance(Due::ShutdownBegins(id.clone())));
        self.group_hears_of_interruption(id);
        true
    }

    /// EC2 sees an elevated risk of interruption. False where the instance does not run.
    pub fn rebalance_recommend(&mut self, id: &InstanceId) -> bool {
        if !self.instances.is(id, InstanceState::Running) {
            return false;
        }
        self.tell(format!("{id} gets a rebalance recommendation"));
        let arn = self.instance_arn(id);
        self.emit_event("aws.ec2", REBALANCE, &[arn], &json!({ "instance-id": id.as_str() }));
        self.group_hears_of_risk(id);
        true
    }

    /// Somebody terminates an instance by hand: EC2 shuts it down at once, and a group notices later.
    /// False where there is nothing to end.
    pub fn terminate_instance(&mut self, id: &InstanceId) -> bool {
        let Some(instance) = self.instances.instances.get_mut(id) else { return false };
        match instance.state {
            InstanceState::ShuttingDown | InstanceState::Terminated => return false,
            InstanceState::Pending | InstanceState::Running | InstanceState::Stopped => {}
        }
        instance.state = InstanceState::ShuttingDown;
        self.tell(format!("{id} is shutting down"));
        self.state_changed(id, InstanceState::ShuttingDown);
        self.instance_shutting_down(id);
        self.recheck_targets(id);
        self.group_hears_of_shutdown(id);
        self.after(self.delays.shutdown, WorldDue::Instance(Due::Terminated(id.clone())));
        true
    }

    /// StopInstances.
    pub(crate) fn stop_instance(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.instances.get_mut(id) else { return };
        if instance.state != InstanceState::Running {
            return;
        }
        instance.state = InstanceState::Stopped;
        self.tell(format!("{id} is stopped"));
        self.state_changed(id, InstanceState::Stopped);
        self.instance_stopped(id);
        self.recheck_targets(id);
    }

    /// StartInstances: it runs, and its node is Ready, after the launch delay.
    pub(crate) fn start_instance(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.instances.get_mut(id) else { return };
        if instance.state != InstanceState::Stopped {
            return;
        }
        instance.state = InstanceState::Pending;
        self.tell(format!("{id} is started again"));
        self.after(self.delays.launch, WorldDue::Instance(Due::Running(id.clone())));
    }

    /// `arn:aws:ec2:REGION:ACCOUNT:instance/ID`.
    pub(crate) fn instance_arn(&self, id: &InstanceId) -> String {
        format!("arn:aws:ec2:{}:{}:instance/{id}", self.events.region, self.events.account)
    }

    pub(crate) fn instance_due(&mut self, due: Due) {
        match due {
            Due::Running(id) => {
                let Some(instance) = self.instances.instances.get_mut(&id) else { return };
                if instance.state != InstanceState::Pending {
                    return;
                }
                instance.state = InstanceState::Running;
                self.tell(format!("{id} is running"));
                self.state_changed(&id, InstanceState::Running);
                self.instance_started(&id);
                self.group_hears_of_start(&id);
            }
            Due::ShutdownBegins(id) => {
                self.terminate_instance(&id);
            }
            Due::Terminated(id) => {
                let Some(instance) = self.instances.instances.get_mut(&id) else { return };
                instance.state = InstanceState::Terminated;
                self.tell(format!("{id} is terminated"));
                self.state_changed(&id, InstanceState::Terminated);
                self.forget_targets(&id);
                self.instance_gone(&id);
                self.group_hears_of_end(&id);
            }
        }
    }

    fn state_changed(&mut self, id: &InstanceId, state: InstanceState) {
        let arn = self.instance_arn(id);
        let detail = json!({ "instance-id": id.as_str(), "state": state.as_str() });
        self.emit_event("aws.ec2", STATE_CHANGE, &[arn], &detail);
    }
}
