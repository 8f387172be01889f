//! A clock that can be put forward, so that a double and the platform that it bills see the same time.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use tenantry_domain::{Clock, Millis, SystemClock};

/// Another clock, put ahead of it by as much as it was told. Whoever shares this goes with it.
pub struct AheadClock {
    clock: Arc<dyn Clock>,
    ahead: AtomicI64,
}

impl AheadClock {
    /// `clock`, ahead by `ahead` milliseconds from the start.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, ahead: Millis) -> Self {
        Self { clock, ahead: AtomicI64::new(ahead) }
    }

    /// Puts it forward by so many milliseconds.
    pub fn advance(&self, millis: Millis) {
        self.ahead.fetch_add(millis, Ordering::SeqCst);
    }

    /// How far it is ahead by now.
    #[must_use]
    pub fn ahead(&self) -> Millis {
        self.ahead.load(Ordering::SeqCst)
    }
}

/// The machine's clock, not ahead yet.
impl Default for AheadClock {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock), 0)
    }
}

impl Clock for AheadClock {
    fn now(&self) -> Millis {
        self.clock.now().saturating_add(self.ahead())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Millis {
            1_000
        }
    }

    #[test]
    fn a_clock_that_is_put_forward_stays_ahead() {
        let clock = AheadClock::new(Arc::new(Noon), 5);
        assert_eq!(clock.now(), 1_005);
        clock.advance(20);
        assert_eq!((clock.now(), clock.ahead()), (1_025, 25));
    }
}
