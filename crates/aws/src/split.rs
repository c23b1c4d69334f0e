//! Calls that AWS takes or refuses as a whole, with one answer for each item.

use offramp_core::Outcome;
use offramp_engine::Fault;

/// How one call for several items ended.
#[derive(Clone, Debug)]
pub(crate) enum Whole {
    /// The same holds for each of them.
    Each(Result<Outcome, Fault>),
    /// It was refused because of one of them, and AWS does not say reliably which. Alone, an item gets
    /// this answer.
    SomeOf(Result<Outcome, Fault>),
}

/// Makes one call for all items. Where one of them spoils it, the call is made again for each half, so
/// that one instance that is gone never keeps others waiting: one bad item of 200 costs 16 calls.
pub(crate) async fn whole_or_halves<T, C, F>(items: Vec<T>, call: C) -> Vec<Result<Outcome, Fault>>
where
    T: Clone,
    C: Fn(Vec<T>) -> F,
    F: Future<Output = Whole>,
{
    let mut answers = Vec::with_capacity(items.len());
    let mut open = vec![items];
    while let Some(mut items) = open.pop() {
        let count = items.len();
        match call(items.clone()).await {
            Whole::SomeOf(_) if count > 1 => {
                let later = items.split_off(count / 2);
                open.push(later);
                open.push(items);
            }
            // The first half is always answered before the second, so the order stays.
            Whole::Each(answer) | Whole::SomeOf(answer) => answers.extend(vec![answer; count]),
        }
    }
    answers
}
