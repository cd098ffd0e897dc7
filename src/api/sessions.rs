//! `/auth/sessions`: where a user is logged in.

use serde::Serialize;

use crate::accounts::session::Session;
use crate::app::App;
use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::base::id::SessionId;
use crate::http::request::Request;
use crate::http::response::{self, Response};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedSession<'a> {
    id: SessionId,
    created_at: Timestamp,
    last_used_at: Timestamp,
    expires_at: Timestamp,
    ip: &'a str,
    user_agent: Option<&'a str>,
    current: bool,
}

/// `GET /auth/sessions` → 200, newest first, without those that have ended or expired.
pub(crate) fn list(app: &App, request: &mut Request) -> Result<Response, Error> {
    let user = request.principal.user()?;
    response::ok(&listed(&app.sessions.of_user(user.id)?, Some(user.session)))
}

/// Sessions as they are shown. `own`: the one that asks.
pub(super) fn listed(sessions: &[Session], own: Option<SessionId>) -> Vec<ListedSession<'_>> {
    let listed = sessions.iter().map(|session| ListedSession {
        id: session.id,
        created_at: session.created_at,
        last_used_at: session.last_used_at,
        expires_at: session.expires_at,
        ip: &session.ip,
        user_agent: session.user_agent.as_deref(),
        current: Some(session.id) == own,
    });
    listed.collect()
}

/// `DELETE /auth/sessions/:id` → 200, also for the session that asks; 404 when the user has no such session.
pub(crate) fn end(app: &App, request: &mut Request) -> Result<Response, Error> {
    let user = request.principal.user()?.id;
    let ended = SessionId::parse(request.parameters.get("id"))
        .map_or(Ok(false), |session| app.sessions.end(user, session, &request.by()))?;
    if !ended {
        return Err(Error::NotFound("Session not found".into()));
    }
    response::message("Session ended successfully")
}

/// `DELETE /auth/sessions` → 200; the session that asks stays.
pub(crate) fn end_others(app: &App, request: &mut Request) -> Result<Response, Error> {
    let user = request.principal.user()?;
    app.sessions.end_others(user.id, user.session, &request.by())?;
    response::message("Other sessions ended successfully")
}
