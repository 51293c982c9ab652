//! Deployments and their groups.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::amount::{UACT, coin};
use super::error::{TxError, deployment as says};
use super::event::{about, deployment_json, group_json};
use super::handle::Ctx;
use super::market::LeaseEnd;
use super::state::{DeploymentKey, GroupKey, deployment_escrow, deployment_key, group_key};
use crate::wire::akash::deployment::v1::deployment::State as DeploymentState;
use crate::wire::akash::deployment::v1::{Deployment, DeploymentId, GroupId};
use crate::wire::akash::deployment::v1beta4::group::State as GroupState;
use crate::wire::akash::deployment::v1beta4::{Group, MsgCreateDeployment, MsgUpdateDeployment};

impl Ctx<'_> {
    pub(super) fn create_deployment(&mut self, msg: &MsgCreateDeployment) -> Result<(), TxError> {
        let id = msg.id.clone().unwrap_or_default();
        let key = deployment_key(&id);
        if self.state.deployments.contains(&key) {
            return Err(says::EXISTS.into());
        }
        let (denom, amount) =
            coin(msg.deposit.as_ref().and_then(|deposit| deposit.amount.as_ref()))
                .unwrap_or_default();
        let least = self.params.min_deposit;
        if denom != UACT {
            return Err(says::DEPOSIT_INVALID.into());
        }
        if amount < least {
            return Err(says::DEPOSIT_INVALID
                .because(format_args!("Deposit too low - {amount} < {least}{UACT}")));
        }
        if let Some(window) =
            msg.reclamation.as_ref().and_then(|reclamation| reclamation.min_window)
        {
            let (least, most) = self.params.reclamation_window;
            if window.seconds != 0 && !(least..=most).contains(&window.seconds) {
                return Err(says::INVALID_RECLAMATION.into());
            }
        }
        let payer = self.draw(&id.owner, msg.deposit.as_ref(), (denom, amount))?;
        let created_at = self.block.height_i64();
        let deployment = Deployment {
            id: Some(id.clone()),
            state: DeploymentState::Active.into(),
            hash: msg.hash.clone(),
            created_at,
            reclamation: msg.reclamation,
        };
        self.state.deployments.put(key.clone(), deployment);
        let hash = format!("\"{}\"", STANDARD.encode(&msg.hash));
        self.events.push(about(
            "akash.deployment.v1.EventDeploymentCreated",
            deployment_json(&key),
            vec![("hash", hash)],
        ));
        for (gseq, spec) in (1..).zip(&msg.groups) {
            let group_id = GroupId { owner: id.owner.clone(), dseq: id.dseq, gseq };
            let group = group_key(&group_id);
            let mut spec = spec.clone();
            // The real chain writes the empty list of auditors out.
            spec.requirements.get_or_insert_default().signed_by.get_or_insert_default();
            let row = Group {
                id: Some(group_id),
                state: GroupState::Open.into(),
                group_spec: Some(spec),
                created_at,
            };
            self.state.groups.put(group.clone(), row);
            self.create_order(&group)?;
        }
        let key = deployment_escrow(&id.owner, id.dseq);
        self.open_escrow(&key, &id.owner, (&payer.0, payer.1), (denom, amount))
    }

    pub(super) fn update_deployment(&mut self, msg: &MsgUpdateDeployment) -> Result<(), TxError> {
        let key = deployment_key(&msg.id.clone().unwrap_or_default());
        let deployment = self.active_deployment(&key)?;
        if deployment.hash == msg.hash {
            return Err(says::INVALID_HASH.into());
        }
        self.state.deployments.change(&key, |deployment| deployment.hash.clone_from(&msg.hash));
        let hash = format!("\"{}\"", STANDARD.encode(&msg.hash));
        self.events.push(about(
            "akash.deployment.v1.EventDeploymentUpdated",
            deployment_json(&key),
            vec![("hash", hash)],
        ));
        Ok(())
    }

    pub(super) fn close_deployment(&mut self, id: &DeploymentId) -> Result<(), TxError> {
        self.active_deployment(&deployment_key(id))?;
        self.close_escrow(&deployment_escrow(&id.owner, id.dseq))
    }

    fn active_deployment(&self, key: &DeploymentKey) -> Result<Deployment, TxError> {
        let deployment = self.state.deployments.get(key).ok_or(says::NOT_FOUND)?;
        if deployment.state() != DeploymentState::Active {
            return Err(says::CLOSED.into());
        }
        Ok(deployment.clone())
    }

    /// Its escrow account closed or ran dry: the deployment and all below it end.
    pub(super) fn deployment_ended(&mut self, id: &str, overdrawn: bool) {
        let Some((owner, dseq)) = id.split_once('/') else { return };
        let Ok(dseq) = dseq.parse() else { return };
        let key: DeploymentKey = (owner.to_owned(), dseq);
        if self.active_deployment(&key).is_err() {
            return;
        }
        self.state
            .deployments
            .change(&key, |deployment| deployment.state = DeploymentState::Closed.into());
        self.events.push(about(
            "akash.deployment.v1.EventDeploymentClosed",
            deployment_json(&key),
            Vec::new(),
        ));
        let (state, end) = if overdrawn {
            (GroupState::InsufficientFunds, LeaseEnd::RanDry)
        } else {
            (GroupState::Closed, LeaseEnd::ByOwner)
        };
        for group in self.state.groups_of(&key) {
            if self.group_state(&group) != Some(GroupState::Closed) {
                self.set_group(&group, state);
                self.end_orders(&group, end);
            }
        }
    }

    pub(super) fn group_state(&self, key: &GroupKey) -> Option<GroupState> {
        self.state.groups.get(key).map(Group::state)
    }

    pub(super) fn set_group(&mut self, key: &GroupKey, state: GroupState) {
        self.state.groups.change(key, |group| group.state = state.into());
        let kind = match state {
            GroupState::Open => "akash.deployment.v1.EventGroupStarted",
            GroupState::Paused => "akash.deployment.v1.EventGroupPaused",
            _ => "akash.deployment.v1.EventGroupClosed",
        };
        self.events.push(about(kind, group_json(key), Vec::new()));
    }

    pub(super) fn close_group(&mut self, id: &GroupId) -> Result<(), TxError> {
        let key = group_key(id);
        if self.group_state(&key).ok_or(says::GROUP_NOT_FOUND)? == GroupState::Closed {
            return Err(says::GROUP_CLOSED.into());
        }
        self.set_group(&key, GroupState::Closed);
        self.end_orders(&key, LeaseEnd::ByOwner);
        Ok(())
    }

    pub(super) fn pause_group(&mut self, id: &GroupId) -> Result<(), TxError> {
        let key = group_key(id);
        match self.group_state(&key).ok_or(says::GROUP_NOT_FOUND)? {
            GroupState::Open => {
                self.set_group(&key, GroupState::Paused);
                self.end_orders(&key, LeaseEnd::ByOwner);
                Ok(())
            }
            GroupState::Closed => Err(says::GROUP_CLOSED.into()),
            GroupState::Paused => Err(says::GROUP_PAUSED.into()),
            _ => Err(says::GROUP_NOT_OPEN.into()),
        }
    }

    /// Does not look at the deployment: after it ran dry this makes an order that nobody can ever
    /// lease.
    pub(super) fn start_group(&mut self, id: &GroupId) -> Result<(), TxError> {
        let key = group_key(id);
        match self.group_state(&key).ok_or(says::GROUP_NOT_FOUND)? {
            GroupState::Closed => Err(says::GROUP_CLOSED.into()),
            GroupState::Open => Err(says::GROUP_OPEN.into()),
            _ => {
                self.set_group(&key, GroupState::Open);
                self.create_order(&key)
            }
        }
    }
}
