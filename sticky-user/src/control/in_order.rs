//! Lists that are nearly in the same order: what is looked for comes right after what was found last.

/// A list, and where the next one is expected.
pub(super) struct InOrder<'a, T> {
    all: &'a [T],
    next: usize,
}

impl<'a, T> InOrder<'a, T> {
    pub(super) fn new(all: &'a [T]) -> Self {
        Self { all, next: 0 }
    }

    /// The one for which this holds.
    pub(super) fn find(&mut self, is: impl Fn(&T) -> bool) -> Option<&'a T> {
        let (before, after) = self.all.split_at_checked(self.next)?;
        let found = after.iter().position(&is).map(|place| self.next + place);
        let place = found.or_else(|| before.iter().position(is))?;
        self.next = place + 1;
        self.all.get(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_whatever_the_order() {
        let mut list = InOrder::new(&[1, 2, 3, 4]);
        for wanted in [1, 2, 4, 9, 3, 1, 9, 4] {
            assert_eq!(list.find(|one| *one == wanted), (wanted < 9).then_some(&wanted));
        }
        assert_eq!(InOrder::new(&[]).find(|one: &u8| *one == 1), None);
    }
}
