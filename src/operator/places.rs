//! Places for calls that make pods. They can last: a webhook may take thirty seconds, and be asked about one namespace
//! alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// So many at once, and of one namespace not quite as many.
pub(in crate::operator) struct Places {
    all: usize,
    of_one_namespace: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// Is free again when this is dropped.
pub(in crate::operator) struct Place<'a> {
    places: &'a Places,
    namespace: String,
}

impl Places {
    /// Where there is one place, any namespace may have it.
    pub(in crate::operator) fn new(all: usize) -> Self {
        let all = all.max(1);
        Self { all, of_one_namespace: all - all / 4, taken: Mutex::default() }
    }

    /// None: there is none now.
    pub(in crate::operator) fn take(&self, namespace: &str) -> Option<Place<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all: usize = taken.values().sum();
        let of_this = taken.get(namespace).copied().unwrap_or_default();
        (of_all < self.all && of_this < self.of_one_namespace).then(|| {
            taken.insert(namespace.to_owned(), of_this + 1);
            Place { places: self, namespace: namespace.to_owned() }
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.remove(&self.namespace) {
            Some(of_this) if of_this > 1 => drop(taken.insert(self.namespace.clone(), of_this - 1)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_whose_pods_take_long_leaves_places_to_others() {
        let places = Places::new(8);
        let mut slow: Vec<_> = (0..8).filter_map(|_| places.take("slow")).collect();
        assert_eq!(slow.len(), 6);
        let others: Vec<_> = ["a", "b", "c"].into_iter().filter_map(|namespace| places.take(namespace)).collect();
        assert_eq!((others.len(), places.take("d").is_some()), (2, false));
        slow.pop();
        assert!(places.take("slow").is_some());
        drop((slow, others));
        assert!(places.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn there_is_always_a_place() {
        assert!(Places::new(0).take("a").is_some());
    }
}
