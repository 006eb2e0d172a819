//! PCR 7: under which keys images were checked, read in the order in which firmware has to measure it.

use rootbound_common::tpm::PcrIndex;

use super::event::EventType;
use super::history::{BootHistory, MeasuredEvent};
use super::separator::SeparatorDigests;
use super::variable::{ConfigurationVariable, SecureBootState, Variable};

/// Where PCR 7 breaks the order that makes it readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBootFault {
    /// A variable was not measured before the separator.
    Missing(ConfigurationVariable),
    /// A variable was measured a second time.
    Twice {
        /// The place of the second.
        event: usize,
        /// The variable.
        variable: ConfigurationVariable,
    },
    /// A variable was measured after one that comes later.
    OutOfOrder {
        /// Its place.
        event: usize,
        /// The variable.
        variable: ConfigurationVariable,
    },
    /// An event is said to be a variable, and its digest is not that of the data.
    NotProved {
        /// Its place.
        event: usize,
    },
    /// A variable was measured after the separator, where the operating system can measure as well: it proves nothing.
    AfterSeparator {
        /// Its place.
        event: usize,
        /// The variable.
        variable: ConfigurationVariable,
    },
}

/// One of the variables of the configuration, as it was measured.
#[derive(Debug, Clone)]
pub struct MeasuredVariable<'h> {
    /// The event.
    pub event: &'h MeasuredEvent,
    /// Which one.
    pub variable: ConfigurationVariable,
    /// What was in it.
    pub contents: &'h [u8],
}

/// What PCR 7 says.
///
/// Before the separator only firmware extends PCR 7, so that a variable there is what firmware found. SecureBoot, PK, KEK,
/// db and dbx come in this order, each once, each with its digest over all of its data (PFP, 3.3.4.8). After the separator
/// come the entries that images were checked by; anybody can extend the PCR by then, so that a variable of the
/// configuration is a fault there, whatever it says.
#[derive(Debug, Clone)]
pub struct SecureBootRecord<'h> {
    /// The variables before the separator, in the order of [`ConfigurationVariable::ALL`] where there is no fault.
    pub configuration: Vec<MeasuredVariable<'h>>,
    /// What is said to be an entry that an image was checked by, after the separator; the type is a claim.
    pub authorities: Vec<&'h MeasuredEvent>,
    /// What is none of these, separators left out.
    pub others: Vec<&'h MeasuredEvent>,
    /// What breaks the order.
    pub faults: Vec<SecureBootFault>,
}

impl<'h> SecureBootRecord<'h> {
    /// Reads PCR 7; nothing where the history does not explain it.
    #[must_use]
    pub fn read(history: &'h BootHistory) -> Option<Self> {
        let pcr = PcrIndex::new(7).filter(|pcr| history.explained().contains(*pcr))?;
        let separators = SeparatorDigests::of(history.bank());
        let mut record = Self {
            configuration: Vec::new(),
            authorities: Vec::new(),
            others: Vec::new(),
            faults: Vec::new(),
        };
        let mut separated = false;
        for event in history.of(pcr) {
            if separators.recognise(event.digest()).is_some() {
                separated = true;
            } else if separated {
                record.after(event);
            } else {
                record.before(event);
            }
        }
        for variable in ConfigurationVariable::ALL {
            if record.variable(variable).is_none() {
                record.faults.push(SecureBootFault::Missing(variable));
            }
        }
        Some(record)
    }

    fn before(&mut self, event: &'h MeasuredEvent) {
        let index = event.index();
        let variable = event.proved_variable();
        let Some((variable, contents)) = variable.and_then(|v| Some((v.configuration()?, v.contents())))
        else {
            if event.claimed_type() == EventType::EFI_VARIABLE_DRIVER_CONFIG && event.proved().is_none() {
                self.faults.push(SecureBootFault::NotProved { event: index });
            } else {
                self.others.push(event);
            }
            return;
        };
        if self.variable(variable).is_some() {
            self.faults.push(SecureBootFault::Twice { event: index, variable });
            return;
        }
        if self.configuration.last().is_some_and(|last| last.variable > variable) {
            self.faults.push(SecureBootFault::OutOfOrder { event: index, variable });
        }
        self.configuration.push(MeasuredVariable { event, variable, contents });
    }

    fn after(&mut self, event: &'h MeasuredEvent) {
        let index = event.index();
        let authority = event.claimed_type() == EventType::EFI_VARIABLE_AUTHORITY;
        let claimed = Variable::parse(event.claimed_data()).ok();
        match claimed.and_then(|variable| variable.configuration()) {
            // An entry of `db` that an image was checked by has the name `db`. Whether it is a known one is for rules to say.
            Some(ConfigurationVariable::Db) if authority => self.authorities.push(event),
            Some(variable) => self.faults.push(SecureBootFault::AfterSeparator { event: index, variable }),
            None if authority => self.authorities.push(event),
            None => self.others.push(event),
        }
    }

    /// A variable of the configuration, where it was measured before the separator.
    #[must_use]
    pub fn variable(&self, variable: ConfigurationVariable) -> Option<&MeasuredVariable<'h>> {
        self.configuration.iter().find(|measured| measured.variable == variable)
    }

    /// What the variable SecureBoot says.
    #[must_use]
    pub fn state(&self) -> SecureBootState {
        self.variable(ConfigurationVariable::SecureBoot)
            .map_or(SecureBootState::Absent, |measured| SecureBootState::of(measured.contents))
    }
}
