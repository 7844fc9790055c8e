//! When the machine is too busy for every member's video: whose is cut, and by how much.
//!
//! Pictures of who is silent go first, every other one of theirs, then all; who speaks is cut last. Sound never is.

use super::message::MemberId;
use std::time::Duration;

/// How much of a member's video is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    #[default]
    All,
    /// Every other picture is drawn.
    Half,
    /// It is not even decoded.
    None,
}

/// A thread that works this share of its time is late for pictures that come evenly: it also waits for them.
const OVER: f32 = 0.85;
/// Below this there is room for what was cut last.
const UNDER: f32 = 0.55;
/// How long it is too busy until something is cut, and a further time.
const OVER_FOR: Duration = Duration::from_secs(2);
/// How long there is room until something is given back: longer each time that it was too much, up to the second.
const UNDER_FOR: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(160));

/// Whose video is cut.
#[derive(Debug)]
pub struct Budget {
    /// In the order in which it was done.
    cuts: Vec<(MemberId, Share)>,
    over_since: Option<Duration>,
    under_since: Option<Duration>,
    patience: Duration,
    /// Whether the last change was to give back.
    given_back: bool,
}

impl Default for Budget {
    fn default() -> Self {
        let (cuts, patience) = (Vec::new(), UNDER_FOR.0);
        Self { cuts, over_since: None, under_since: None, patience, given_back: false }
    }
}

impl Budget {
    pub fn share(&self, member: &MemberId) -> Share {
        self.cuts.iter().rev().find(|(cut, _)| cut == member).map_or(Share::All, |(_, share)| *share)
    }

    /// Takes how busy the busiest thread was lately, from 0 to 1, and cuts or gives back one share if that lasts.
    /// `order`: whom to cut first, first.
    pub fn look(&mut self, busy: f32, order: &[MemberId], now: Duration) {
        self.cuts.retain(|(member, _)| order.contains(member));
        let lasts = |since: &mut Option<Duration>, is: bool, long: Duration| {
            *since = is.then(|| since.unwrap_or(now));
            let lasts = since.is_some_and(|since| now.saturating_sub(since) >= long);
            if lasts {
                *since = None;
            }
            lasts
        };
        if lasts(&mut self.over_since, busy > OVER, OVER_FOR) {
            if std::mem::take(&mut self.given_back) {
                self.patience = (self.patience * 2).min(UNDER_FOR.1);
            }
            self.cut(order);
        }
        if lasts(&mut self.under_since, busy < UNDER, self.patience) {
            self.given_back = self.cuts.pop().is_some();
            if !self.given_back {
                self.patience = UNDER_FOR.0;
            }
        }
    }

    /// Gives everything back to this member.
    pub fn spare(&mut self, member: &MemberId) {
        self.cuts.retain(|(cut, _)| cut != member);
    }

    fn cut(&mut self, order: &[MemberId]) {
        for share in [Share::Half, Share::None] {
            if let Some(member) = order.iter().find(|member| self.share(member) < share) {
                return self.cuts.push((member.clone(), share));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> [MemberId; 2] {
        ["amy", "bob"].map(|id| MemberId::parse(id).expect("an id"))
    }

    /// Looks each second from `from` to before `to`; answers when the shares changed, and to what.
    fn seconds(budget: &mut Budget, busy: f32, from: u64, to: u64) -> Vec<(u64, [Share; 2])> {
        let members = members();
        let mut changes = Vec::new();
        for second in from..to {
            let shares = |budget: &Budget| [0, 1].map(|index| budget.share(&members[index]));
            let before = shares(budget);
            budget.look(busy, &members, Duration::from_secs(second));
            if shares(budget) != before {
                changes.push((second, shares(budget)));
            }
        }
        changes
    }

    #[test]
    fn who_is_first_in_the_order_is_cut_first_and_everyone_by_half_before_anyone_whole() {
        use Share::{All, Half, None};
        let mut budget = Budget::default();

        let changes = seconds(&mut budget, 0.95, 0, 20);

        let shares: Vec<_> = changes.iter().map(|(_, shares)| *shares).collect();
        assert_eq!(changes[0].0, 2, "not at once");
        assert_eq!(shares, [[Half, All], [Half, Half], [None, Half], [None, None]]);
    }

    #[test]
    fn a_moment_of_work_cuts_nothing() {
        let mut budget = Budget::default();
        for second in 0..60 {
            let busy = if second % 2 == 0 { 1.0 } else { 0.7 };
            assert!(seconds(&mut budget, busy, second, second + 1).is_empty());
        }
    }

    #[test]
    fn what_was_cut_last_is_given_back_first_and_later_each_time_that_was_too_much() {
        use Share::{All, Half};
        let mut budget = Budget::default();
        seconds(&mut budget, 0.95, 0, 6);
        assert_eq!(seconds(&mut budget, 0.3, 6, 12), [(11, [Half, All])]);

        assert_eq!(seconds(&mut budget, 0.95, 12, 15), [(14, [Half, Half])]);
        assert_eq!(seconds(&mut budget, 0.3, 15, 26), [(25, [Half, All])], "10 s this time");

        assert_eq!(seconds(&mut budget, 0.3, 26, 40), [(36, [All, All])]);
        seconds(&mut budget, 0.3, 40, 60);
        seconds(&mut budget, 0.95, 60, 63);
        assert_eq!(seconds(&mut budget, 0.3, 63, 69), [(68, [All, All])], "5 s again");
    }

    #[test]
    fn who_is_spared_or_has_left_has_all() {
        let [amy, bob] = members();
        let mut budget = Budget::default();
        seconds(&mut budget, 0.95, 0, 10);

        budget.spare(&amy);
        budget.look(0.7, std::slice::from_ref(&amy), Duration::from_secs(10));

        assert_eq!([budget.share(&amy), budget.share(&bob)], [Share::All; 2]);
    }
}
