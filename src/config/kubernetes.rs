//! What Kubernetes puts into the environment of every container: for a service called `db`, DB_PORT=tcp://10.0.0.1:5432.
//! That is no setting, unless a setting of the operator needs the port.

/// The setting whose value comes from Kubernetes and means nothing to us. `given`: the value of a setting.
pub(super) fn injected<'a>(given: impl Fn(&str) -> Option<&'a str>) -> Option<&'static str> {
    let is_link =
        given("DB_PORT").is_some_and(|port| ["tcp://", "udp://", "sctp://"].iter().any(|by| port.starts_with(by)));
    let is_read = given("DATABASE_URL").is_none() && given("DB_HOST").is_some();
    (is_link && !is_read).then_some("DB_PORT")
}

/// One line for the operator.
pub(super) fn warning(name: &str) -> String {
    format!(
        "{name}: is passed over: it is what Kubernetes sets for a service called db; `enableServiceLinks: false` stops that"
    )
}
