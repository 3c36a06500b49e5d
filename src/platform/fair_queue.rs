//! A round-robin queue of namespaces: however many items of one namespace wait, those of another are next.

use std::collections::{HashMap, VecDeque};

/// The waiting items, by namespace.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// Namespaces with waiting items, the next one first.
    next: VecDeque<String>,
    by_namespace: HashMap<String, VecDeque<T>>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { next: VecDeque::new(), by_namespace: HashMap::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// The number of waiting items.
    pub fn waiting(&self) -> usize {
        self.len
    }

    /// Adds an item behind the others of its namespace.
    pub fn push(&mut self, namespace: &str, item: T) {
        let own = self.by_namespace.entry(namespace.to_owned()).or_default();
        if own.is_empty() {
            self.next.push_back(namespace.to_owned());
        }
        own.push_back(item);
        self.len += 1;
    }

    /// Adds an item to a queue of at most `limit` items. Returns the item that is left out if the queue is full: the
    /// newest of the namespace that has the most, which may be the new item.
    pub fn push_within(&mut self, limit: usize, namespace: &str, item: T) -> Option<T> {
        if self.len < limit {
            self.push(namespace, item);
            return None;
        }
        let own = self.by_namespace.get(namespace).map_or(0, VecDeque::len);
        match self.by_namespace.values_mut().max_by_key(|items| items.len()) {
            // The namespace keeps at least one item.
            Some(most) if most.len() > own + 1 => {
                let newest = most.pop_back();
                self.len -= 1;
                self.push(namespace, item);
                newest
            }
            Some(_) | None => Some(item),
        }
    }

    /// Takes the next item.
    pub fn pop(&mut self) -> Option<T> {
        let namespace = self.next.pop_front()?;
        let own = self.by_namespace.get_mut(&namespace)?;
        let first = own.pop_front();
        if own.is_empty() {
            self.by_namespace.remove(&namespace);
        } else {
            self.next.push_back(namespace);
        }
        self.len -= usize::from(first.is_some());
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_take_turns_and_each_keeps_its_order() {
        let mut turns = FairQueue::default();
        for (namespace, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            turns.push(namespace, item);
        }
        let order: Vec<i32> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert!(turns.waiting() == 0 && turns.by_namespace.is_empty() && turns.next.is_empty());
    }

    #[test]
    fn where_all_is_taken_the_namespace_that_has_most_gives_way() {
        let mut turns = FairQueue::default();
        for n in 0..100 {
            let left_out = turns.push_within(10, "crowd", n);
            assert_eq!(left_out, (n >= 10).then_some(n));
        }
        for n in 200..210 {
            let left_out = turns.push_within(10, "quiet", n);
            // Until both namespaces have the same number.
            assert_eq!(left_out, Some(if n < 205 { 9 - (n - 200) } else { n }));
        }
        assert_eq!(turns.waiting(), 10);
        // Many namespaces with one item each do not push each other out.
        let mut turns = FairQueue::default();
        assert_eq!((0..20).filter(|n| turns.push_within(10, &n.to_string(), *n).is_some()).count(), 10);
    }
}
