//! Which of two sizes of our pictures each receiver gets, and at which bit rate each is coded.
//!
//! The camera's picture is coded once as it is (the full layer) and once with half its sides (the quarter layer), each
//! only while somebody gets it. A receiver gets the full layer if it shows it larger than the quarter and its way
//! carries it. Each layer has the bit rate that the narrowest way to its receivers carries, and not less than its
//! floor: whose way carries less than that of the full layer gets the quarter, and when that is too much still, that
//! layer has fewer pictures a second.

use super::message::MemberId;
use super::wish::Wish;
use crate::geometry::{Fit, Size};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Sound with its headers, which goes the same way.
const SOUND_BPS: u32 = 60_000;
/// The share of what is left that pictures may take: the rest is for what is sent again.
const SHARE_PERCENT: u32 = 90;
/// A picture is shown larger than the quarter layer from this share of its sides on, in thousandths: to change to the
/// full layer, and to keep it.
const LARGER: (u64, u64) = (550, 500);
/// Neither side of a layer is shorter.
const SHORTEST_SIDE: u32 = 64;
/// How long a way must carry the full layer until that is tried again: twice as long each time that it was too soon.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(64));
/// A way that gets narrow again within this time was called wide too soon.
const TOO_SOON: Duration = Duration::from_secs(20);
/// Bit rates are multiples of this: not every flutter of an estimate is passed on.
const GRAIN_BPS: u32 = 10_000;

/// One of the two sizes in which our pictures are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// As the camera gives it.
    Full,
    /// Half as wide and half as high.
    Quarter,
}

impl Layer {
    pub const ALL: [Self; 2] = [Self::Full, Self::Quarter];

    /// The size of this layer of pictures of `full` size; sides are even.
    pub fn size(self, full: Size) -> Size {
        match self {
            Self::Full => full,
            Self::Quarter => Size::new((full.width / 2) & !1, (full.height / 2) & !1),
        }
    }

    /// The most and the least bits a second that this layer is worth, if the full one is worth at most `ceiling_bps`.
    pub fn bitrates(self, ceiling_bps: u32) -> (u32, u32) {
        match self {
            Self::Full => (ceiling_bps, ceiling_bps / 3),
            Self::Quarter => (ceiling_bps / 5 * 2, ceiling_bps / 10),
        }
    }
}

/// What is known of one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// What it says it needs; `None` for one that says nothing: it gets the full layer.
    pub wish: Option<Wish>,
    /// Bits a second that the way to it carries, in all; `None`: not known.
    pub estimate_bps: Option<u32>,
}

/// How one layer is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub bitrate_bps: u32,
    /// Every picture is coded (1), every other (2) or one of four (4).
    pub every: u32,
}

/// What is to be done with the next picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `None`: nobody gets it, so it is not coded.
    pub full: Option<Rate>,
    pub quarter: Option<Rate>,
    /// What each receiver is to get; `None`: no pictures.
    pub receivers: BTreeMap<MemberId, Option<Layer>>,
}

impl Plan {
    pub fn rate(&self, layer: Layer) -> Option<Rate> {
        match layer {
            Layer::Full => self.full,
            Layer::Quarter => self.quarter,
        }
    }
}

/// Decides, and remembers what was decided so as not to waver.
#[derive(Debug)]
pub struct Layers {
    ceiling_bps: u32,
    receivers: BTreeMap<MemberId, Receiver>,
}

#[derive(Debug)]
struct Receiver {
    /// Whether it was last shown larger than the quarter layer.
    larger: Option<bool>,
    /// Whether its way is too narrow for the full layer.
    narrow: bool,
    /// Since when the way seems wide again.
    wide_since: Option<Duration>,
    /// When it was last called wide.
    widened: Option<Duration>,
    patience: Duration,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { larger: None, narrow: false, wide_since: None, widened: None, patience: PATIENCE.0 }
    }
}

impl Layers {
    /// For a full layer of at most `ceiling_bps`.
    pub fn new(ceiling_bps: u32) -> Self {
        Self { ceiling_bps, receivers: BTreeMap::new() }
    }

    /// What is to be done with a picture of `full` size at `now`.
    pub fn plan(&mut self, full: Size, demands: &BTreeMap<MemberId, Demand>, now: Duration) -> Plan {
        self.receivers.retain(|member, _| demands.contains_key(member));
        let quarter = Layer::Quarter.size(full);
        let divides = quarter.width.min(quarter.height) >= SHORTEST_SIDE;
        let mut plan = Plan::default();
        let mut narrowest: BTreeMap<Layer, u32> = BTreeMap::new();
        for (member, demand) in demands {
            let budget = demand.budget_bps();
            let receiver = self.receivers.entry(member.clone()).or_default();
            let layer = match demand.wish {
                Some(Wish::Hidden) => None,
                Some(Wish::Shown { size, fit }) if divides => {
                    let larger = receiver.shows_larger(full, size, fit);
                    let narrow = receiver.is_narrow(budget, self.ceiling_bps, now);
                    Some(if larger && !narrow { Layer::Full } else { Layer::Quarter })
                }
                _ => Some(Layer::Full),
            };
            if let Some(layer) = layer {
                let least = narrowest.entry(layer).or_insert(u32::MAX);
                *least = (*least).min(budget);
            }
            plan.receivers.insert(member.clone(), layer);
        }
        let rate = |layer| narrowest.get(&layer).map(|budget| rate(layer, *budget, self.ceiling_bps));
        (plan.full, plan.quarter) = (rate(Layer::Full), rate(Layer::Quarter));
        plan
    }
}

impl Demand {
    /// What the way carries besides sound; the most there is if that is not known.
    fn budget_bps(&self) -> u32 {
        self.estimate_bps.map_or(u32::MAX, |bps| bps.saturating_sub(SOUND_BPS) / 100 * SHARE_PERCENT)
    }
}

impl Receiver {
    fn shows_larger(&mut self, full: Size, shown: Size, fit: Fit) -> bool {
        let share = |shown: u32, full: u32| u64::from(shown) * 1000 / u64::from(full.max(1));
        let (width, height) = (share(shown.width, full.width), share(shown.height, full.height));
        let share = match fit {
            Fit::Contain => width.min(height),
            Fit::Fill | Fit::Cover => width.max(height),
        };
        let larger = share > if self.larger == Some(false) { LARGER.0 } else { LARGER.1 };
        self.larger = Some(larger);
        larger
    }

    fn is_narrow(&mut self, budget_bps: u32, ceiling_bps: u32, now: Duration) -> bool {
        let (_, floor) = Layer::Full.bitrates(ceiling_bps);
        if budget_bps < floor {
            if !self.narrow {
                let too_soon = self.widened.is_some_and(|at| now.saturating_sub(at) < TOO_SOON);
                self.patience = if too_soon { (self.patience * 2).min(PATIENCE.1) } else { PATIENCE.0 };
            }
            (self.narrow, self.wide_since) = (true, None);
        } else if budget_bps < floor / 4 * 5 {
            self.wide_since = None;
        } else if self.narrow && now.saturating_sub(*self.wide_since.get_or_insert(now)) >= self.patience {
            (self.narrow, self.widened) = (false, Some(now));
        }
        self.narrow
    }
}

/// How a layer is coded whose narrowest way carries so much.
fn rate(layer: Layer, budget_bps: u32, ceiling_bps: u32) -> Rate {
    let (most, floor) = layer.bitrates(ceiling_bps);
    let coarse = |bps: u32| bps / GRAIN_BPS * GRAIN_BPS;
    match layer {
        Layer::Full => Rate { bitrate_bps: coarse(budget_bps.clamp(floor, most)).max(floor), every: 1 },
        Layer::Quarter => {
            let every = match budget_bps {
                bps if bps >= floor => 1,
                bps if bps >= floor / 2 => 2,
                _ => 4,
            };
            let least = (floor / 4).max(GRAIN_BPS);
            Rate { bitrate_bps: coarse(budget_bps.clamp(least, most)).max(least), every }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VGA: Size = Size::new(640, 480);
    const CEILING: u32 = 900_000;
    const SMALL: Wish = Wish::Shown { size: Size::new(160, 120), fit: Fit::Cover };
    const LARGE: Wish = Wish::Shown { size: Size::new(960, 540), fit: Fit::Cover };

    #[test]
    fn who_shows_it_small_gets_the_quarter_and_who_shows_it_large_the_full_layer() {
        let mut house = House::new();

        let plan = house.plan(&[("small", Some(SMALL), None), ("large", Some(LARGE), None)]);

        assert_eq!((plan.of("small"), plan.of("large")), (Some(Layer::Quarter), Some(Layer::Full)));
        assert_eq!(plan.0.full, Some(Rate { bitrate_bps: CEILING, every: 1 }));
        assert_eq!(plan.0.quarter, Some(Rate { bitrate_bps: CEILING / 5 * 2, every: 1 }));
    }

    #[test]
    fn who_hides_it_gets_nothing_and_a_layer_that_nobody_gets_is_not_coded() {
        let mut house = House::new();

        let plan = house.plan(&[("hides", Some(Wish::Hidden), None), ("small", Some(SMALL), None)]);
        assert_eq!((plan.of("hides"), plan.0.full), (None, None));
        let plan = house.plan(&[("hides", Some(Wish::Hidden), None)]);

        assert_eq!((plan.0.full, plan.0.quarter), (None, None));
    }

    #[test]
    fn who_says_nothing_gets_the_full_layer_however_narrow_its_way() {
        let mut house = House::new();

        let plan = house.plan(&[("browser", None, Some(100_000))]);

        assert_eq!(plan.of("browser"), Some(Layer::Full));
        assert_eq!(plan.0.full, Some(Rate { bitrate_bps: CEILING / 3, every: 1 }));
    }

    #[test]
    fn a_tile_at_the_border_does_not_waver() {
        let mut house = House::new();
        let wide = |width| [("one", Some(Wish::Shown { size: Size::new(width, 90), fit: Fit::Fill }), None)];

        let layers = [320, 330, 355, 330, 321, 320, 340].map(|width| house.plan(&wide(width)).of("one"));

        let (full, quarter) = (Some(Layer::Full), Some(Layer::Quarter));
        assert_eq!(layers, [quarter, quarter, full, full, full, quarter, quarter]);
    }

    #[test]
    fn a_whole_picture_between_bars_is_as_large_as_its_shorter_side_allows() {
        let mut house = House::new();
        let strip = |fit| [("one", Some(Wish::Shown { size: Size::new(640, 120), fit }), None)];

        assert_eq!(house.plan(&strip(Fit::Contain)).of("one"), Some(Layer::Quarter));
        assert_eq!(house.plan(&strip(Fit::Cover)).of("one"), Some(Layer::Full));
    }

    #[test]
    fn the_narrowest_way_of_a_layer_decides_its_bit_rate() {
        let mut house = House::new();

        let plan = house.plan(&[
            ("a", Some(LARGE), Some(760_000)),
            ("b", Some(LARGE), Some(560_000)),
            ("c", Some(SMALL), Some(260_000)),
        ]);

        assert_eq!(plan.0.full.map(|rate| rate.bitrate_bps), Some(450_000));
        assert_eq!(plan.0.quarter.map(|rate| rate.bitrate_bps), Some(180_000));
    }

    #[test]
    fn a_narrow_way_gets_the_quarter_then_fewer_pictures() {
        let mut house = House::new();
        let every = |house: &mut House, estimate| {
            let plan = house.plan(&[("one", Some(LARGE), Some(estimate))]);
            assert_eq!(plan.of("one"), Some(Layer::Quarter));
            plan.0.quarter.expect("it is coded").every
        };

        assert_eq!(every(&mut house, 300_000), 1);
        assert_eq!(every(&mut house, 140_000), 2);
        assert_eq!(every(&mut house, 50_000), 4);
    }

    #[test]
    fn a_way_that_is_wide_again_gets_the_full_layer_after_a_while_and_later_each_time_it_was_too_soon() {
        let mut house = House::new();
        let waits = |house: &mut House| {
            house.plan(&[("one", Some(LARGE), Some(200_000))]);
            let start = house.now;
            while house.plan(&[("one", Some(LARGE), Some(700_000))]).of("one") == Some(Layer::Quarter) {
                house.now += Duration::from_secs(1);
            }
            (house.now - start).as_secs()
        };

        assert_eq!([waits(&mut house), waits(&mut house), waits(&mut house)], [4, 8, 16]);
        house.now += TOO_SOON;
        assert_eq!(waits(&mut house), 4);
    }

    #[test]
    fn a_picture_too_small_to_be_divided_has_one_layer() {
        let mut layers = Layers::new(CEILING);
        let demands = BTreeMap::from([(id("one"), Demand { wish: Some(SMALL), estimate_bps: None })]);

        let plan = layers.plan(Size::new(160, 120), &demands, Duration::ZERO);

        assert_eq!(plan.receivers[&id("one")], Some(Layer::Full));
    }

    proptest! {
        #[test]
        fn bit_rates_stay_within_their_bounds(
            estimates in proptest::collection::vec((any::<Option<u32>>(), 0..3usize), 0..16),
            ceiling in 100_000..20_000_000u32,
        ) {
            let mut layers = Layers::new(ceiling);
            let wishes = [Wish::Hidden, SMALL, LARGE];
            let demands = estimates.into_iter().enumerate().map(|(index, (estimate_bps, wish))| {
                (id(&format!("m{index}")), Demand { wish: Some(wishes[wish]), estimate_bps })
            });

            let plan = layers.plan(VGA, &demands.collect(), Duration::ZERO);

            for layer in Layer::ALL {
                let gets = plan.receivers.values().any(|got| *got == Some(layer));
                prop_assert_eq!(plan.rate(layer).is_some(), gets);
                let (most, _) = layer.bitrates(ceiling);
                prop_assert!(plan.rate(layer).is_none_or(|rate| rate.bitrate_bps <= most && rate.bitrate_bps > 0));
            }
        }
    }

    struct House {
        layers: Layers,
        now: Duration,
    }

    struct Planned(Plan);

    impl Planned {
        fn of(&self, member: &str) -> Option<Layer> {
            self.0.receivers[&id(member)]
        }
    }

    impl House {
        fn new() -> Self {
            Self { layers: Layers::new(CEILING), now: Duration::from_secs(100) }
        }

        fn plan(&mut self, demands: &[(&str, Option<Wish>, Option<u32>)]) -> Planned {
            let demands = demands.iter().map(|(member, wish, estimate_bps)| {
                (id(member), Demand { wish: *wish, estimate_bps: *estimate_bps })
            });
            Planned(self.layers.plan(VGA, &demands.collect(), self.now))
        }
    }

    fn id(text: &str) -> MemberId {
        MemberId::parse(text).expect("an id")
    }
}
