//! Pictures: whose arrive, whose have stopped, and whose are cut because the machine is too busy.

use super::*;
use crate::room::Mode;
use crate::room::budget::Share;
use crate::room::document::Member;

impl Room {
    pub(super) fn flow(&mut self, member: MemberId, flow: Flow, now: Now) {
        if self.joined_document().is_none_or(|document| document.member(&member).is_none()) {
            return;
        }
        let part = Part::Tile(member.clone());
        match flow {
            Flow::Live => {
                self.faults.heal_if(|fault| fault.part == part && fault.code != Code::TileOverBudget, now);
                if let Some(position) = self.said.camera.filter(|_| member == self.settings.id) {
                    self.faults.heal(&Part::Camera(position), now);
                }
            }
            // It is not looked at.
            Flow::Stalled if self.budget.share(&member) == Share::None => return,
            Flow::Stalled if self.peers.get(&member).is_some_and(|peer| peer.link() == Link::Connected) => {
                self.raise(fault(part, Code::TileStalled), None, now);
            }
            // The own camera's faults are the camera's; without a connection that is the fault.
            Flow::Stalled => {}
        }
        self.flows.insert(member, flow);
    }

    /// Pictures that stopped for a reason that is over, or that has a fault of its own, are waited for anew.
    pub(super) fn forget_stall(&mut self, member: &MemberId, now: Now) {
        if self.flows.get(member) == Some(&Flow::Stalled) {
            self.flows.remove(member);
        }
        let part = Part::Tile(member.clone());
        self.faults.heal_if(|fault| fault.part == part && fault.code == Code::TileStalled, now);
    }

    /// Hears how busy the busiest thread was in the last second, from 0 to 1.
    pub(super) fn busy(&mut self, busy: f32, now: Now) {
        let order = self.dispensable();
        self.budget.look(busy, &order, now.mono);
        self.judge_budget(order, now);
    }

    /// Whose video may be cut, first first: who is silent before who speaks, pinned members and who spoke last late,
    /// the last tiles before the first.
    fn dispensable(&self) -> Vec<MemberId> {
        let members = self.joined_document().map_or(&[][..], |document| &document.members);
        let mut members: Vec<&Member> =
            members.iter().rev().filter(|member| member.mode == Mode::Video).collect();
        members.sort_by_key(|member| {
            let spoke_last = self.spoke_last.as_ref() == Some(&member.id);
            (self.speakers.contains_key(&member.id), member.pin, spoke_last)
        });
        members.into_iter().map(|member| member.id.clone()).collect()
    }

    fn judge_budget(&mut self, members: Vec<MemberId>, now: Now) {
        for member in members {
            let part = Part::Tile(member.clone());
            let cut = self.budget.share(&member) > Share::All;
            if cut && !self.faults.is_active(&part, Code::TileOverBudget) {
                self.raise(fault(part, Code::TileOverBudget), None, now);
            } else if !cut {
                let over = |fault: &Fault| fault.part == part && fault.code == Code::TileOverBudget;
                self.faults.heal_if(over, now);
            }
        }
    }
}
