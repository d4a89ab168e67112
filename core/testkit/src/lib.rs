//! What the tests of several crates share.
//!
//! * [`naive`]: a slow, obvious reader of Iceberg tables, the oracle of every scan.
//! * [`TableBuilder`]: tables with random rows of many types.
//! * [`Actors`]: writers beside each other, and what must be there in the end.
//! * [`FailingStore`]: fails, stalls, or loses the reply of, the request number N.
//! * [`LosingCatalog`]: commits and loses the reply.
//! * [`invariants`]: what must hold of a lake's files whatever happened.

mod actors;
mod failing_store;
pub mod invariants;
mod losing_catalog;
pub mod naive;
mod table_builder;

pub use actors::Actors;
pub use failing_store::{FailingStore, Fault, FaultPlan};
pub use losing_catalog::{LosingCatalog, Loss};
pub use table_builder::{COLUMNS, TableBuilder};
