//! Lists as streams of pages: what the list-streaming RPCs answer with.

use std::pin::Pin;
use tokio_stream::Stream;
use tonic::Status;

/// Most items of one message. Statistics of 100 containers are some 50 KiB.
const PAGE_ITEMS: usize = 100;

/// A stream of messages of type `T`.
pub type Pages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Cuts a list into pages of at least one item each; an empty list has none.
pub fn pages<I, T>(items: Vec<I>, page: impl Fn(Vec<I>) -> T + Send + 'static) -> Pages<T>
where
    I: Send + 'static,
    T: Send + 'static,
{
    let mut rest = items.into_iter();
    let next = move || {
        let items: Vec<I> = rest.by_ref().take(PAGE_ITEMS).collect();
        (!items.is_empty()).then(|| Ok(page(items)))
    };
    Box::pin(tokio_stream::iter(std::iter::from_fn(next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    async fn page_sizes(items: usize) -> Vec<usize> {
        let stream = pages((0..items).collect(), |page: Vec<usize>| page.len());
        stream.map(|page| page.unwrap()).collect().await
    }

    #[tokio::test]
    async fn every_item_is_in_one_page_and_no_page_is_empty() {
        assert_eq!(page_sizes(0).await, Vec::<usize>::new());
        assert_eq!(page_sizes(1).await, [1]);
        assert_eq!(page_sizes(PAGE_ITEMS).await, [PAGE_ITEMS]);
        assert_eq!(
            page_sizes(2 * PAGE_ITEMS + 3).await,
            [PAGE_ITEMS, PAGE_ITEMS, 3]
        );
    }
}
