//! The body of a stream. It waits for events without holding the lock on the state, and ends with its client.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future;
use futures::stream::{self, Stream};
use hyper::body::{Bytes, Frame};
use jiff::Timestamp;

use crate::clock;
use crate::faults::StreamEnd;
use crate::state::Shared;
use crate::stream::{Feed, Look, Then, error_frame};

/// A comment that tells the client, and the proxies in between, that the stream is alive.
const HEARTBEAT: &str = ": heartbeat\n\n";

pub(crate) fn body(
    shared: Arc<Shared>,
    workspace: String,
    feed: Feed,
    fault: Option<StreamEnd>,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    shared.streams.fetch_add(1, Ordering::Relaxed);
    let live = Live { shared, workspace, feed, fault, begun: None, last_sent: Timestamp::MIN };
    stream::unfold(Some(live), |live| async move { live?.next().await })
}

struct Live {
    shared: Arc<Shared>,
    workspace: String,
    feed: Feed,
    fault: Option<StreamEnd>,
    /// When the first poll was. Faults count from this time, so that a slow machine never cuts events that are
    /// available at once.
    begun: Option<Timestamp>,
    last_sent: Timestamp,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The next step of a stream.
enum Next {
    Send(String),
    SendLast(String),
    Wait(Duration),
    End,
    BreakOff,
}

/// A frame, and the stream's rest if there is one.
type Sent = (io::Result<Frame<Bytes>>, Option<Live>);

impl Live {
    /// Waits until there is something to send.
    async fn next(mut self) -> Option<Sent> {
        let shared = Arc::clone(&self.shared);
        loop {
            // Created before the poll, so that no change in between is missed.
            let changed = shared.changed.notified();
            let wait = match self.look() {
                Next::Send(text) => return Some((Ok(Frame::data(text.into())), Some(self))),
                Next::SendLast(text) => return Some((Ok(Frame::data(text.into())), None)),
                Next::Wait(time) => time,
                Next::End => return None,
                Next::BreakOff => {
                    // hyper discards unwritten data when a body fails: leave time to write.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return Some((Err(io::Error::other("cut on purpose")), None));
                }
            };
            future::select(std::pin::pin!(changed), std::pin::pin!(tokio::time::sleep(wait))).await;
        }
    }

    fn look(&mut self) -> Next {
        let state = &mut *self.shared.lock();
        let (workspace, cx) = state.open(&self.workspace);
        let begun = *self.begun.get_or_insert(cx.now);
        let fate = self.fault.map_or(Timestamp::MAX, |fault| clock::after(begun, fault.after));
        match self.fault {
            Some(fault) if fate <= cx.now && fault.with_error => return Next::SendLast(error_frame()),
            Some(_) if fate <= cx.now => return Next::BreakOff,
            _ => {}
        }
        let Look { frames, then } = self.feed.look(workspace, &cx);
        if !frames.is_empty() {
            self.last_sent = cx.now;
            return if matches!(then, Then::End) { Next::SendLast(frames) } else { Next::Send(frames) };
        }
        let due = match then {
            Then::LookAgain => cx.now,
            Then::WaitUntil(due) => due,
            Then::End => return Next::End,
        };
        let silence = Duration::from_millis(cx.switches.heartbeat_ms.max(1));
        let heartbeat = clock::after(self.last_sent.max(begun), silence);
        if heartbeat <= cx.now {
            self.last_sent = cx.now;
            return Next::Send(HEARTBEAT.to_owned());
        }
        Next::Wait(clock::between(cx.now, due.min(heartbeat).min(fate)))
    }
}
