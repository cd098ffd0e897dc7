//! How many deliveries are made at the same time, and which ones share.

/// What runs in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// An endpoint; `slow`: its last try was.
    Endpoint {
        slow: bool,
    },
    Mail,
}

/// Slots that are used. Endpoints that are slow share half of them, and mail the same half while its server is silent, so
/// that others always get a turn.
#[derive(Debug)]
pub(crate) struct Slots {
    all: usize,
    quick: usize,
    slow: usize,
    mail: usize,
    /// The last mail timed out.
    pub mail_is_slow: bool,
}

impl Slots {
    pub(crate) fn new(all: usize) -> Slots {
        Slots { all, quick: 0, slow: 0, mail: 0, mail_is_slow: false }
    }

    pub(crate) fn used(&self) -> usize {
        self.quick + self.slow + self.mail
    }

    /// How many are free for this.
    pub(crate) fn free(&self, what: Use) -> usize {
        let half = (self.all / 2).max(1);
        let shared = if self.mail_is_slow { self.slow + self.mail } else { 0 };
        let of_those = match what {
            Use::Endpoint { slow: false } => self.all,
            Use::Endpoint { slow: true } => half.saturating_sub(self.slow.max(shared)),
            Use::Mail => half.saturating_sub(self.mail.max(shared)),
        };
        of_those.min(self.all.saturating_sub(self.used()))
    }

    pub(crate) fn take(&mut self, what: Use) {
        *self.of(what) += 1;
    }

    pub(crate) fn give_back(&mut self, what: Use) {
        let used = self.of(what);
        *used = used.saturating_sub(1);
    }

    fn of(&mut self, what: Use) -> &mut usize {
        match what {
            Use::Endpoint { slow: false } => &mut self.quick,
            Use::Endpoint { slow: true } => &mut self.slow,
            Use::Mail => &mut self.mail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Use = Use::Endpoint { slow: false };
    const SLOW: Use = Use::Endpoint { slow: true };

    fn free(slots: &Slots) -> [usize; 3] {
        [QUICK, SLOW, Use::Mail].map(|what| slots.free(what))
    }

    #[test]
    fn what_is_slow_has_half_and_mail_has_half() {
        let mut slots = Slots::new(8);
        assert_eq!(free(&slots), [8, 4, 4]);
        (0..4).for_each(|_| slots.take(SLOW));
        assert_eq!(free(&slots), [4, 0, 4]);
        slots.mail_is_slow = true;
        assert_eq!(free(&slots), [4, 0, 0]);
        slots.give_back(SLOW);
        assert_eq!(free(&slots), [5, 1, 1]);
        slots.take(Use::Mail);
        assert_eq!(free(&slots), [4, 0, 0]);
        slots.mail_is_slow = false;
        assert_eq!(free(&slots), [4, 1, 3]);
        (0..4).for_each(|_| slots.take(QUICK));
        assert_eq!(free(&slots), [0, 0, 0]);
        assert_eq!(free(&Slots::new(1)), [1, 1, 1]);
    }
}
