//! Packet-filter rules (nf_tables) written straight to the kernel through netlink.
//!
//! ```text
//! Batch (one table) ─ add/flush/delete ─▶ netlink messages ─ commit ─▶ one kernel transaction
//! ```
//!
//! A [`Batch`] collects commands about one table; [`Batch::commit`] hands all of them to the
//! kernel of the calling thread's network namespace at once: either every command takes effect in
//! the same instant or none does. No program is started and nothing is read back.
//!
//! It does not list or parse existing rules, and knows no mesh noun: what to redirect is decided
//! by the callers (`net::capture` for a pod, the sandbox's service proxy for a node).

mod expression;
mod rule;
mod set;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

pub use expression::{Field, Reject, Value, Verdict};
pub use rule::{Pick, Protocol, Rule};
pub use set::{Kind, Set};
pub use wire::Family;

use std::io;

use wire::Message;

/// Where in a packet's way a base chain listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing, for every packet that arrives.
    Prerouting,
    /// For packets to this host's own sockets.
    Input,
    /// For packets that are routed through.
    Forward,
    /// For packets from this host's own sockets.
    Output,
    /// After routing, for every packet that leaves.
    Postrouting,
}

/// What a base chain may do with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept, drop, reject; sees every packet.
    Filter,
    /// Rewrite addresses; sees the first packet of each connection only.
    Nat,
}

/// What turns a chain into a base chain, which the kernel calls by itself.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// What its rules may do.
    pub kind: ChainKind,
    /// Where it listens.
    pub hook: Hook,
    /// Order among the chains of a hook, low first. Destination NAT happens at -100, source NAT at 100.
    pub priority: i32,
}

/// Why rules could not be written. The table is then as it was before.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The caller has no right over this network namespace.
    #[error(
        "cannot {command}: not permitted; packet-filter rules need CAP_NET_ADMIN in this network namespace"
    )]
    Permission {
        /// The refused command.
        command: String,
    },
    /// The kernel has no nf_tables at all.
    #[error(
        "the kernel offers no nf_tables ({0}); load the module nf_tables or use a kernel with CONFIG_NF_TABLES"
    )]
    Unsupported(#[source] io::Error),
    /// The kernel understood the transaction and refused one of its commands.
    #[error("cannot {command}: {source}{detail}")]
    Refused {
        /// The refused command.
        command: String,
        /// The kernel's error number.
        #[source]
        source: io::Error,
        /// The kernel's own words in brackets, or a likely cause; may be empty.
        detail: String,
    },
    /// The netlink socket itself failed.
    #[error("cannot talk to the kernel's packet filter ({step}): {source}")]
    Socket {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// One command or the whole transaction exceeds what one netlink write may hold.
    #[error("cannot {command}: the transaction is too large for one netlink write")]
    TooLarge {
        /// The command, or the batch as a whole.
        command: String,
    },
}

/// Commands about one table, to be executed as one transaction, in order.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: String,
    commands: Vec<Command>,
    /// Number of the next anonymous set, unique in the transaction.
    next_set: u32,
}

#[derive(Debug)]
struct Command {
    /// Completes the sentence "cannot …".
    label: String,
    message: Message,
}

impl Batch {
    /// An empty transaction about the table `table` of a family.
    pub fn new(family: Family, table: &str) -> Batch {
        Batch {
            family,
            table: table.to_owned(),
            commands: Vec::new(),
            next_set: 1,
        }
    }

    /// Creates the table; an existing one stays as it is.
    pub fn add_table(&mut self) -> &mut Self {
        let label = format!("add table {}", self.table);
        let message = self.message(libc::NFT_MSG_NEWTABLE, wire::CREATE);
        self.push(label, message)
    }

    /// Deletes the table with all it holds. Refused when there is none: call [`Batch::add_table`]
    /// before it in the same batch to delete a table that may be missing.
    pub fn delete_table(&mut self) -> &mut Self {
        let label = format!("delete table {}", self.table);
        let message = self.message(libc::NFT_MSG_DELTABLE, 0);
        self.push(label, message)
    }

    /// Creates a chain that other chains jump to; an existing one stays as it is.
    pub fn add_chain(&mut self, chain: &str) -> &mut Self {
        let mut message = self.message(libc::NFT_MSG_NEWCHAIN, wire::CREATE);
        message.string(wire::CHAIN_NAME, chain);
        self.push(format!("add chain {chain}"), message)
    }

    /// Creates a chain that the kernel calls; packets that it does not decide are accepted.
    /// An existing chain with the same place stays as it is.
    pub fn add_base_chain(&mut self, chain: &str, base: Base) -> &mut Self {
        let mut message = self.message(libc::NFT_MSG_NEWCHAIN, wire::CREATE);
        message.string(wire::CHAIN_NAME, chain);
        message.nest(wire::CHAIN_HOOK, |hook| {
            hook.number(wire::HOOK_NUMBER, base.hook as u32);
            hook.number(wire::HOOK_PRIORITY, base.priority as u32);
        });
        message.number(wire::CHAIN_POLICY, wire::ACCEPT);
        message.string(
            wire::CHAIN_TYPE,
            match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            },
        );
        self.push(format!("add chain {chain}"), message)
    }

    /// Removes every rule of a chain. Refused when there is no such chain.
    pub fn flush_chain(&mut self, chain: &str) -> &mut Self {
        let mut message = self.message(libc::NFT_MSG_DELRULE, 0);
        message.string(wire::RULE_CHAIN, chain);
        self.push(format!("flush chain {chain}"), message)
    }

    /// Deletes a chain without rules that no rule refers to.
    pub fn delete_chain(&mut self, chain: &str) -> &mut Self {
        let mut message = self.message(libc::NFT_MSG_DELCHAIN, 0);
        message.string(wire::CHAIN_NAME, chain);
        self.push(format!("delete chain {chain}"), message)
    }

    /// Appends a rule to a chain, with the anonymous sets and maps that it looks things up in.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) -> &mut Self {
        let first = self.next_set;
        for set in rule.sets() {
            let id = self.next_set;
            self.next_set += 1;
            self.create_set(
                &format!("__{}%d", if set.is_map() { "map" } else { "set" }),
                set,
                id,
            );
        }
        let mut message = self.message(
            libc::NFT_MSG_NEWRULE,
            wire::CREATE | libc::NLM_F_APPEND as u16,
        );
        message.string(wire::RULE_CHAIN, chain);
        message.nest(wire::RULE_EXPRESSIONS, |list| rule.encode(list, first));
        self.push(format!("add rule to chain {chain}"), message)
    }

    /// Creates a named set or map with its elements; an existing one keeps its own elements too.
    pub fn add_set(&mut self, name: &str, set: &Set) -> &mut Self {
        let id = self.next_set;
        self.next_set += 1;
        self.create_set(name, set, id);
        self
    }

    /// Removes every element of a named set.
    pub fn flush_set(&mut self, name: &str) -> &mut Self {
        let mut message = self.message(libc::NFT_MSG_DELSETELEM, 0);
        message.string(wire::ELEMENTS_SET, name);
        self.push(format!("flush set {name}"), message)
    }

    /// Deletes a named set that no rule uses.
    pub fn delete_set(&mut self, name: &str) -> &mut Self {
        let mut message = self.message(libc::NFT_MSG_DELSET, 0);
        message.string(wire::SET_NAME, name);
        self.push(format!("delete set {name}"), message)
    }

    /// Executes everything in the network namespace of the calling thread. Blocks for the few
    /// microseconds that the kernel needs. An empty batch does nothing.
    pub fn commit(self) -> Result<(), NftError> {
        if self.commands.is_empty() {
            return Ok(());
        }
        socket::transact(&self.commands)
    }

    fn create_set(&mut self, name: &str, set: &Set, id: u32) {
        let mut message = self.message(libc::NFT_MSG_NEWSET, wire::CREATE);
        message.string(wire::SET_NAME, name);
        set.encode(&mut message, id, name.contains('%'));
        self.push(format!("add set {name}"), message);
        for part in set.element_lists() {
            let mut message = self.message(libc::NFT_MSG_NEWSETELEM, wire::CREATE);
            message.string(wire::ELEMENTS_SET, name);
            message.number(wire::ELEMENTS_SET_ID, id);
            message.nest(wire::ELEMENTS_LIST, |list| {
                part.iter().for_each(|element| element.encode(list));
            });
            self.push(format!("add elements to set {name}"), message);
        }
    }

    /// A message about this batch's table; every kind of message names it in attribute 1.
    fn message(&self, kind: libc::c_int, flags: u16) -> Message {
        let mut message = Message::new(wire::command(kind), flags, self.family);
        message.string(wire::TABLE_NAME, &self.table);
        message
    }

    fn push(&mut self, label: String, message: Message) -> &mut Self {
        let label = format!("{label} (table {} {})", self.family.name(), self.table);
        self.commands.push(Command { label, message });
        self
    }
}
