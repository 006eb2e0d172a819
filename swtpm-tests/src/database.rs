//! The verifier's database, behind the verifier's back: what a failing disk or a stranger with write access does.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::world::World;

/// Executes one statement; returns how many rows it changed.
///
/// # Panics
/// Where SQLite refuses.
pub async fn execute(world: &World, statement: &str) -> u64 {
    let options = SqliteConnectOptions::new().filename(world.path().join("verifier.db"));
    let mut connection = options.connect().await.expect("the verifier's database");
    let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await;
    let changed = done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected();
    connection.close().await.expect("a connection that closes");
    changed
}

/// Holds the database so that nobody else can write to it, until [`Hold::release`]. The verifier waits for five seconds.
pub struct Hold {
    connection: SqliteConnection,
}

impl Hold {
    /// Holds it from now on.
    ///
    /// # Panics
    /// Where SQLite refuses.
    pub async fn on(world: &World) -> Self {
        let options = SqliteConnectOptions::new().filename(world.path().join("verifier.db"));
        let mut connection = options.connect().await.expect("the verifier's database");
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await;
        begun.expect("a database that nobody else holds");
        Self { connection }
    }

    /// Lets the others write again.
    ///
    /// # Panics
    /// Where SQLite refuses.
    pub async fn release(self) {
        self.connection.close().await.expect("a connection that closes");
    }
}

/// Makes a table refuse what meets a condition, as a disk does that is full or broken, until [`Fault::repair`].
pub struct Fault<'w> {
    world: &'w World,
}

impl<'w> Fault<'w> {
    /// `event` is `INSERT` or `UPDATE`; `condition` is SQL on `NEW`.
    pub async fn on(world: &'w World, event: &str, table: &str, condition: &str) -> Self {
        let trigger = format!(
            "CREATE TRIGGER fault BEFORE {event} ON {table} WHEN {condition} \
             BEGIN SELECT RAISE(ABORT, 'a fault that a test put here'); END"
        );
        execute(world, &trigger).await;
        Self { world }
    }

    /// Takes the fault away.
    pub async fn repair(self) {
        execute(self.world, "DROP TRIGGER fault").await;
    }
}
