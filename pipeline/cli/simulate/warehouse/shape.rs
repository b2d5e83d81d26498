//! How many devices there are when: activations that grow month by month and
//! an activity that decays with a device's age, so that the totals asked for
//! come out.

use ameles_core::Month;

/// What fleet to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetShape {
    /// Devices, all activated within the months.
    pub devices: u64,
    /// The first month.
    pub from: Month,
    /// How many months.
    pub months: u32,
    /// Pairs of a device and a month in which it is active.
    pub device_months: u64,
    /// Devices active in the last month.
    pub last_month_actives: u64,
    /// Everything random follows from it.
    pub seed: u64,
}

/// The two numbers that give the totals.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Part of the devices that each month activates.
    pub activated: Vec<f64>,
    /// Part of the devices of an age that is active; by months since activation.
    pub active_at_age: Vec<f64>,
}

impl FleetShape {
    /// As many months as a fleet may have.
    pub const MONTHS_MAX: u32 = 36;

    pub fn month(&self, number: usize) -> Month {
        self.from.plus(number as i32)
    }

    /// The curve with the totals asked for.
    ///
    /// # Errors
    /// In words, when no curve of this kind has them.
    pub fn curve(&self) -> Result<Curve, String> {
        let months = self.months as usize;
        let mean = self.device_months as f64 / self.devices as f64;
        let wanted = self.last_month_actives as f64 / self.devices as f64;
        if mean < 1.0 {
            return Err(format!("each of {} devices is active in a month at least: ask for more device-months", self.devices));
        }
        // The later devices are activated, the more of them are active in the last month.
        let (mut low, mut high) = (0.5, 2.0);
        let Some(first) = Curve::of(months, low, mean) else {
            return Err(format!("{months} months have no room for {mean:.2} months of activity for each device"));
        };
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            match Curve::of(months, middle, mean) {
                Some(curve) if curve.last_month() < wanted => low = middle,
                _ => high = middle,
            }
        }
        let curve = Curve::of(months, low, mean).unwrap_or(first);
        let found = curve.last_month();
        if (found - wanted).abs() > wanted / 1_000.0 {
            let nearest = (found * self.devices as f64) as u64;
            return Err(format!(
                "the last month cannot have {} active devices with these totals, {nearest} at the nearest",
                self.last_month_actives
            ));
        }
        Ok(curve)
    }
}

impl Curve {
    /// Activations that grow by `growth` each month, and the decay that gives each device `mean` months on average.
    fn of(months: usize, growth: f64, mean: f64) -> Option<Self> {
        let weights: Vec<f64> = (0..months).map(|month| growth.powi(month as i32)).collect();
        let total: f64 = weights.iter().sum();
        let activated: Vec<f64> = weights.into_iter().map(|weight| weight / total).collect();
        let with =
            |decay: f64| Self { activated: activated.clone(), active_at_age: (0..months).map(|age| decay.powi(age as i32)).collect() };
        let (mut low, mut high) = (0.0, 1.0);
        if with(high).device_months() < mean {
            return None;
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if with(middle).device_months() < mean { low = middle } else { high = middle }
        }
        Some(with(high))
    }

    /// Devices active in a month, as a part of all.
    pub fn active_in(&self, month: usize) -> f64 {
        (0..=month).map(|activated| self.activated[activated] * self.active_at_age[month - activated]).sum()
    }

    fn last_month(&self) -> f64 {
        self.active_in(self.activated.len() - 1)
    }

    fn device_months(&self) -> f64 {
        (0..self.activated.len()).map(|month| self.active_in(month)).sum()
    }
}
