//! Endpoints of users and operators that are told what happens: where they may be, and what is sent to them.
