//! Both halves of what the library calls a connection, the client and the wire, driven by the thread that asks.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Runtime;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Error, Notification, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Notifications that are kept until somebody takes them. Of further ones it is only known that there were some.
const NOTIFICATIONS: usize = 1024;

pub(crate) type Wire = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

pub(crate) struct Link {
    client: Client,
    wire: Wire,
    notifications: Vec<Notification>,
    /// Whether there were more notifications than are kept.
    missed: bool,
    ended: bool,
}

impl Link {
    pub(crate) fn new(client: Client, wire: Wire) -> Link {
        Link { client, wire, notifications: Vec::new(), missed: false, ended: false }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server has closed the connection.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Drives the connection until the answer is there.
    pub(crate) async fn ask<T>(&mut self, ask: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let Link { client, wire, notifications, missed, ended } = self;
        let mut answer = pin!(ask(client));
        poll_fn(|context| {
            // The client is polled before the wire, to have its request sent, and after it, to get what was received.
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            let end = drive(wire, context, notifications, missed);
            *ended |= end.is_err();
            match (answer.as_mut().poll(context), end) {
                (Poll::Pending, Err(error)) => Poll::Ready(Err(error)),
                (answer, _) => answer,
            }
        })
        .await
    }

    /// Drives the connection until there is a notification.
    pub(crate) async fn wait_for_notification(&mut self) -> Result<(), Error> {
        poll_fn(|context| {
            let end = drive(&mut self.wire, context, &mut self.notifications, &mut self.missed);
            self.ended |= end.is_err();
            match end {
                Ok(()) if self.notifications.is_empty() => Poll::Pending,
                end => Poll::Ready(end),
            }
        })
        .await
    }

    /// The notifications since the last time. `None`: there were more than are kept.
    pub(crate) fn take_notifications(&mut self) -> Option<Vec<Notification>> {
        let notifications = std::mem::take(&mut self.notifications);
        if std::mem::take(&mut self.missed) { None } else { Some(notifications) }
    }

    /// Tells the server that the connection ends, as far as that can be sent without waiting.
    pub(crate) fn close(self, runtime: &Runtime) {
        let Link { client, mut wire, .. } = self;
        drop(client);
        let _within = runtime.enter();
        let _ = Pin::new(&mut wire).poll(&mut Context::from_waker(Waker::noop()));
    }
}

/// Sends and receives what can be without waiting.
fn drive(
    wire: &mut Wire,
    context: &mut Context<'_>,
    notifications: &mut Vec<Notification>,
    missed: &mut bool,
) -> Result<(), Error> {
    // `None`, the orderly end of the wire, comes only when the client is gone.
    while let Poll::Ready(Some(message)) = wire.poll_message(context) {
        match message? {
            AsyncMessage::Notification(notification) if notifications.len() < NOTIFICATIONS => {
                notifications.push(notification);
            }
            AsyncMessage::Notification(_) => *missed = true,
            _ => {}
        }
    }
    Ok(())
}
