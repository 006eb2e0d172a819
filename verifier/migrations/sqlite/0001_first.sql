-- Times are milliseconds since 1970-01-01T00:00:00Z. Keys, digests and what a TPM made are bytes as they came; what
-- only the verifier reads is JSON. The CHECKs state which rows the verbs write; whoever reads a row checks it again.

CREATE TABLE spent_challenge (
    nonce BLOB PRIMARY KEY CHECK (length(nonce) = 32),
    remember_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX spent_challenge_by_end ON spent_challenge (remember_until);

CREATE TABLE pending_enrollment (
    id BLOB PRIMARY KEY CHECK (length(id) = 32),
    -- The node that it is to become, by its EK.
    node BLOB NOT NULL CHECK (length(node) = 32),
    ek_public BLOB NOT NULL,
    endorsement TEXT NOT NULL CHECK (endorsement IN ('vendor_chain', 'listed_key')),
    ek_certificate BLOB,
    trust_anchor BLOB CHECK (length(trust_anchor) = 32),
    ak_public BLOB NOT NULL,
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    deadline INTEGER NOT NULL,
    join_token_digest BLOB CHECK (length(join_token_digest) = 32),
    CHECK ((endorsement = 'vendor_chain') = (ek_certificate IS NOT NULL)),
    CHECK ((endorsement = 'vendor_chain') = (trust_anchor IS NOT NULL))
) STRICT;

CREATE INDEX pending_enrollment_by_deadline ON pending_enrollment (deadline);
CREATE INDEX pending_enrollment_by_node ON pending_enrollment (node, deadline);

-- What every piece of evidence rewrites is small; what an enrolment writes once is in endorsed_key.
CREATE TABLE node (
    id BLOB PRIMARY KEY CHECK (length(id) = 32),
    standing TEXT NOT NULL CHECK (standing IN ('pending', 'admitted', 'retired')),
    admitted_by TEXT CHECK (admitted_by IN ('inventory', 'join_token', 'approval')),
    labels TEXT NOT NULL,
    ak_public BLOB NOT NULL,
    revision INTEGER NOT NULL CHECK (revision > 0),
    enrolled_at INTEGER NOT NULL,
    -- The last accepted quote's clock. The two 64-bit counters of the TPM are kept as signed numbers of the same bits.
    clock INTEGER,
    reset_count INTEGER,
    restart_count INTEGER,
    clock_safe INTEGER CHECK (clock_safe IN (0, 1)),
    firmware_version INTEGER,
    made_at INTEGER,
    -- Rises whenever what was handed out before counts no more.
    epoch INTEGER NOT NULL DEFAULT 1 CHECK (epoch > 0),
    -- What stands against the node, whatever it shows; with its history in hold.
    holds TEXT NOT NULL DEFAULT '[]',
    -- Evidence made then or before counts as stale.
    attested_after INTEGER,
    CHECK ((standing = 'admitted') = (admitted_by IS NOT NULL)),
    CHECK ((clock IS NULL) = (reset_count IS NULL)),
    CHECK ((clock IS NULL) = (restart_count IS NULL)),
    CHECK ((clock IS NULL) = (clock_safe IS NULL)),
    CHECK ((clock IS NULL) = (firmware_version IS NULL)),
    CHECK ((clock IS NULL) = (made_at IS NULL))
) STRICT, WITHOUT ROWID;

-- An AK lives in one TPM, and a TPM is one node: under a second id it would evade what was decided on the first.
CREATE UNIQUE INDEX node_by_attestation_key ON node (ak_public);

CREATE TABLE endorsed_key (
    node BLOB PRIMARY KEY REFERENCES node (id),
    ek_public BLOB NOT NULL,
    endorsement TEXT NOT NULL CHECK (endorsement IN ('vendor_chain', 'listed_key')),
    ek_certificate BLOB,
    trust_anchor BLOB CHECK (length(trust_anchor) = 32),
    CHECK ((endorsement = 'vendor_chain') = (ek_certificate IS NOT NULL)),
    CHECK ((endorsement = 'vendor_chain') = (trust_anchor IS NOT NULL))
) STRICT;

-- The last accepted quote by the AK that is enrolled now, and what it means.
CREATE TABLE evidence (
    node BLOB PRIMARY KEY REFERENCES node (id),
    quote BLOB NOT NULL,
    signature BLOB NOT NULL,
    pcrs TEXT NOT NULL,
    evidence_at INTEGER NOT NULL,
    posture TEXT NOT NULL
) STRICT;

-- The logs of the boot that this evidence is of, as far as they were asked for.
CREATE TABLE node_log (
    node BLOB PRIMARY KEY REFERENCES evidence (node) ON DELETE CASCADE,
    -- Names the boot.
    reset_count INTEGER NOT NULL,
    boot_log_state TEXT NOT NULL CHECK (boot_log_state IN ('not_sent', 'absent', 'present', 'refused')),
    -- A zstd frame, as it came.
    boot_log BLOB,
    -- How far the IMA list is verified, and what came of it; NULL where it was never asked for.
    ima TEXT,
    CHECK ((boot_log_state IN ('present', 'refused')) = (boot_log IS NOT NULL))
) STRICT;

-- The IMA list of that boot: consecutive entries, as zstd frames.
CREATE TABLE ima_frame (
    number INTEGER PRIMARY KEY,
    node BLOB NOT NULL REFERENCES node_log (node) ON DELETE CASCADE,
    -- Whether no quote covers it yet: the list comes in several messages, or was read after its quote.
    pending INTEGER NOT NULL CHECK (pending IN (0, 1)),
    frame BLOB NOT NULL
) STRICT;

CREATE INDEX ima_frame_by_node ON ima_frame (node, pending, number);

CREATE TABLE certificate (
    recorded INTEGER PRIMARY KEY,
    serial BLOB NOT NULL UNIQUE CHECK (length(serial) = 16),
    node BLOB NOT NULL REFERENCES node (id),
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    key_digest BLOB NOT NULL CHECK (length(key_digest) = 32),
    -- Whether the node's AK was superseded since, or the certificate never left: the row is history, and counts no more.
    superseded INTEGER NOT NULL CHECK (superseded IN (0, 1))
) STRICT;

CREATE INDEX certificate_by_node ON certificate (node, not_after);
CREATE INDEX certificate_by_end ON certificate (not_after);

-- Tokens, each on record before it is signed.
CREATE TABLE token (
    recorded INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE CHECK (length(id) = 22),
    node BLOB NOT NULL CHECK (length(node) = 32),
    client TEXT NOT NULL,
    -- With a space between two; none is within one.
    audience TEXT NOT NULL,
    permits TEXT NOT NULL,
    binding TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    once INTEGER NOT NULL CHECK (once IN (0, 1)),
    spent_at INTEGER,
    revoked_at INTEGER,
    CHECK (once = 1 OR spent_at IS NULL)
) STRICT;

CREATE INDEX token_by_end ON token (expires_at);
CREATE INDEX token_by_node ON token (node, expires_at);

CREATE TABLE reference_set (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    accepted TEXT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    withdrawn_by TEXT,
    withdrawn_reason TEXT,
    withdrawn_at INTEGER,
    PRIMARY KEY (name, version),
    CHECK ((withdrawn_by IS NULL) = (withdrawn_reason IS NULL)),
    CHECK ((withdrawn_by IS NULL) = (withdrawn_at IS NULL))
) STRICT;

-- What digest sets accept, once for each content: versions, and sets, that accept the same share it.
CREATE TABLE digest_content (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    -- Its text: how long it is, and of which bytes of its parts it is, as a zstd frame; a SHA-256 of both and of its parts.
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    runs BLOB NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT;

-- Pieces of texts of digest sets, which many texts share.
CREATE TABLE digest_chunk (
    number INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- What stands for its pieces: by it, texts find what they share with it.
    sketch BLOB NOT NULL,
    -- A zstd frame of its bytes, of which `hash` is the SHA-256.
    frame BLOB NOT NULL
) STRICT;

-- Which chunks a text is of.
CREATE TABLE digest_part (
    content BLOB NOT NULL REFERENCES digest_content (hash),
    position INTEGER NOT NULL CHECK (position >= 0),
    chunk INTEGER NOT NULL REFERENCES digest_chunk (number),
    PRIMARY KEY (content, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE digest_set (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    content BLOB NOT NULL REFERENCES digest_content (hash),
    digests INTEGER NOT NULL CHECK (digests > 0),
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    withdrawn_by TEXT,
    withdrawn_reason TEXT,
    withdrawn_at INTEGER,
    PRIMARY KEY (name, version),
    CHECK ((withdrawn_by IS NULL) = (withdrawn_reason IS NULL)),
    CHECK ((withdrawn_by IS NULL) = (withdrawn_at IS NULL))
) STRICT;

-- Values of boots, for the rules of profiles.
CREATE TABLE boot_set (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    content TEXT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    withdrawn_by TEXT,
    withdrawn_reason TEXT,
    withdrawn_at INTEGER,
    PRIMARY KEY (name, version),
    CHECK ((withdrawn_by IS NULL) = (withdrawn_reason IS NULL)),
    CHECK ((withdrawn_by IS NULL) = (withdrawn_at IS NULL))
) STRICT;

-- Updates of sets: `version` has what `over` had, and what is new.
CREATE TABLE set_staging (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('pcrs', 'boot', 'digests')),
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > over),
    over INTEGER NOT NULL CHECK (over > 0),
    -- What is new: of digests the content, of the others the values.
    part TEXT,
    part_content BLOB REFERENCES digest_content (hash),
    part_digests INTEGER CHECK (part_digests > 0),
    ended TEXT CHECK (ended IN ('promoted', 'unstaged', 'overtaken')),
    ended_at INTEGER,
    CHECK ((kind = 'digests') = (part_content IS NOT NULL)),
    CHECK ((kind = 'digests') = (part IS NULL)),
    CHECK ((part_content IS NULL) = (part_digests IS NULL)),
    CHECK ((ended IS NULL) = (ended_at IS NULL))
) STRICT;

CREATE UNIQUE INDEX set_staging_open ON set_staging (kind, name) WHERE ended IS NULL;

CREATE TRIGGER set_staging_ends_once
BEFORE UPDATE ON set_staging WHEN OLD.ended IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'an update of a set that has ended stays so'); END;

CREATE TRIGGER set_staging_is_immutable
BEFORE UPDATE OF kind, name, version, over, part, part_content, part_digests ON set_staging
BEGIN SELECT RAISE(ABORT, 'what an update of a set is of never changes'); END;

-- What nothing makes acceptable. The last version is in force.
CREATE TABLE deny_list (
    version INTEGER PRIMARY KEY CHECK (version > 0),
    entries TEXT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER deny_list_is_immutable
BEFORE UPDATE ON deny_list
BEGIN SELECT RAISE(ABORT, 'a version of the deny list never changes'); END;

CREATE TRIGGER deny_list_stays
BEFORE DELETE ON deny_list
BEGIN SELECT RAISE(ABORT, 'a version of the deny list is never deleted'); END;

-- When the last document with a set was made, by its signer ('': nobody) and whose it says to be: an older one is refused.
CREATE TABLE imported_set (
    signer TEXT NOT NULL,
    origin TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('pcrs', 'boot', 'digests')),
    name TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (signer, origin, kind, name)
) STRICT;

CREATE TRIGGER imported_set_is_not_set_back
BEFORE UPDATE ON imported_set WHEN NEW.made_at < OLD.made_at
BEGIN SELECT RAISE(ABORT, 'when the last document was made is never set back'); END;

CREATE TRIGGER imported_set_stays
BEFORE DELETE ON imported_set
BEGIN SELECT RAISE(ABORT, 'when a document was made is never forgotten'); END;

CREATE TRIGGER boot_set_is_immutable
BEFORE UPDATE OF name, version, content, author, reason, created_at ON boot_set
BEGIN SELECT RAISE(ABORT, 'a version of a boot set never changes'); END;

CREATE TRIGGER boot_set_is_withdrawn_once
BEFORE UPDATE ON boot_set WHEN OLD.withdrawn_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a withdrawn version of a boot set stays withdrawn'); END;

CREATE TRIGGER boot_set_stays
BEFORE DELETE ON boot_set
BEGIN SELECT RAISE(ABORT, 'a version of a boot set is never deleted'); END;

CREATE TABLE profile (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    body TEXT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;

-- A version, once written, never changes; a set can be withdrawn, once.
CREATE TRIGGER reference_set_is_immutable
BEFORE UPDATE OF name, version, accepted, author, reason, created_at ON reference_set
BEGIN SELECT RAISE(ABORT, 'a version of a reference set never changes'); END;

CREATE TRIGGER reference_set_is_withdrawn_once
BEFORE UPDATE ON reference_set WHEN OLD.withdrawn_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a withdrawn version of a reference set stays withdrawn'); END;

CREATE TRIGGER reference_set_stays
BEFORE DELETE ON reference_set
BEGIN SELECT RAISE(ABORT, 'a version of a reference set is never deleted'); END;

CREATE TRIGGER digest_content_is_immutable
BEFORE UPDATE ON digest_content
BEGIN SELECT RAISE(ABORT, 'the content of a digest set never changes'); END;

CREATE TRIGGER digest_content_stays
BEFORE DELETE ON digest_content
BEGIN SELECT RAISE(ABORT, 'the content of a digest set is never deleted'); END;

CREATE TRIGGER digest_chunk_is_immutable
BEFORE UPDATE ON digest_chunk
BEGIN SELECT RAISE(ABORT, 'a chunk of digest sets never changes'); END;

CREATE TRIGGER digest_chunk_stays
BEFORE DELETE ON digest_chunk
BEGIN SELECT RAISE(ABORT, 'a chunk of digest sets is never deleted'); END;

CREATE TRIGGER digest_part_is_immutable
BEFORE UPDATE ON digest_part
BEGIN SELECT RAISE(ABORT, 'the parts of the content of a digest set never change'); END;

CREATE TRIGGER digest_part_stays
BEFORE DELETE ON digest_part
BEGIN SELECT RAISE(ABORT, 'a part of the content of a digest set is never deleted'); END;

CREATE TRIGGER digest_set_is_immutable
BEFORE UPDATE OF name, version, content, digests, author, reason, created_at ON digest_set
BEGIN SELECT RAISE(ABORT, 'a version of a digest set never changes'); END;

CREATE TRIGGER digest_set_is_withdrawn_once
BEFORE UPDATE ON digest_set WHEN OLD.withdrawn_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a withdrawn version of a digest set stays withdrawn'); END;

CREATE TRIGGER digest_set_stays
BEFORE DELETE ON digest_set
BEGIN SELECT RAISE(ABORT, 'a version of a digest set is never deleted'); END;

CREATE TRIGGER profile_is_immutable
BEFORE UPDATE ON profile
BEGIN SELECT RAISE(ABORT, 'a version of a profile never changes'); END;

CREATE TRIGGER profile_stays
BEFORE DELETE ON profile
BEGIN SELECT RAISE(ABORT, 'a version of a profile is never deleted'); END;

CREATE TABLE inventory (
    node BLOB PRIMARY KEY CHECK (length(node) = 32),
    waive_endorsement INTEGER NOT NULL CHECK (waive_endorsement IN (0, 1)),
    labels TEXT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE join_token (
    recorded INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    node BLOB CHECK (length(node) = 32),
    labels TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    used_by BLOB CHECK (length(used_by) = 32),
    used_at INTEGER,
    revoked INTEGER NOT NULL CHECK (revoked IN (0, 1)),
    CHECK ((used_by IS NULL) = (used_at IS NULL)),
    CHECK (used_by IS NULL OR revoked = 0)
) STRICT;

-- Texts of policy bundles, once for each content.
CREATE TABLE policy_content (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    text BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_bundle (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    content BLOB NOT NULL REFERENCES policy_content (hash),
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER policy_content_is_immutable
BEFORE UPDATE ON policy_content
BEGIN SELECT RAISE(ABORT, 'the text of a policy bundle never changes'); END;

CREATE TRIGGER policy_bundle_is_immutable
BEFORE UPDATE ON policy_bundle
BEGIN SELECT RAISE(ABORT, 'a version of a policy bundle never changes'); END;

-- The last one is in force. Without a name: the bundle that is part of the program.
CREATE TABLE policy_activation (
    number INTEGER PRIMARY KEY CHECK (number > 0),
    name TEXT,
    version INTEGER,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    FOREIGN KEY (name, version) REFERENCES policy_bundle (name, version),
    CHECK ((name IS NULL) = (version IS NULL))
) STRICT;

CREATE TRIGGER policy_activation_is_immutable
BEFORE UPDATE ON policy_activation
BEGIN SELECT RAISE(ABORT, 'an activation never changes'); END;

CREATE TABLE decision (
    recorded INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    node BLOB CHECK (length(node) = 32),
    kind TEXT NOT NULL CHECK (
        kind IN ('enroll', 'activate', 'attest', 'reappraise', 'operate', 'signal')
    ),
    granted INTEGER NOT NULL CHECK (granted IN (0, 1)),
    code TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE INDEX decision_by_time ON decision (at);
CREATE INDEX decision_by_node ON decision (node, at);
-- In the order of recording (a rowid ends each index). With the column, so that counting them reads no row.
CREATE INDEX decision_refused ON decision (granted) WHERE granted = 0;

CREATE TRIGGER decision_is_immutable
BEFORE UPDATE ON decision
BEGIN SELECT RAISE(ABORT, 'a decision never changes'); END;

-- Every hold that a node has or had. Those that stand are in node.holds, too, to be read with it.
CREATE TABLE hold (
    recorded INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    node BLOB NOT NULL REFERENCES node (id),
    kind TEXT NOT NULL CHECK (kind IN ('block', 'lower')),
    source TEXT NOT NULL CHECK (source IN ('operator', 'relying_party')),
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    since INTEGER NOT NULL,
    expires_at INTEGER,
    ended TEXT CHECK (ended IN ('expired', 'lifted')),
    lifted_source TEXT CHECK (lifted_source IN ('operator', 'relying_party')),
    lifted_author TEXT,
    lifted_reason TEXT,
    ended_at INTEGER,
    CHECK ((ended IS NULL) = (ended_at IS NULL)),
    CHECK ((ended IS NOT NULL AND ended = 'lifted') = (lifted_source IS NOT NULL)),
    CHECK ((lifted_source IS NULL) = (lifted_author IS NULL)),
    CHECK ((lifted_source IS NULL) = (lifted_reason IS NULL))
) STRICT;

CREATE INDEX hold_by_node ON hold (node, recorded);
CREATE INDEX hold_by_end ON hold (ended_at);

CREATE TRIGGER hold_ends_once
BEFORE UPDATE ON hold WHEN OLD.ended_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a hold that has ended stays so'); END;

-- What relying parties said against nodes, with what was answered: the same again changes nothing.
CREATE TABLE signal (
    recorded INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    at INTEGER NOT NULL,
    answer TEXT NOT NULL,
    UNIQUE (source, id)
) STRICT;

CREATE INDEX signal_by_time ON signal (at);

-- The audit trail: one segment for each commit that has something to record.
CREATE TABLE audit_segment (
    -- The number of its first record; the trail begins with 1.
    first INTEGER PRIMARY KEY CHECK (first > 0),
    count INTEGER NOT NULL CHECK (count > 0),
    -- The earliest and the latest time of a record: its id names its time, and so it is found.
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL CHECK (last_at >= first_at),
    -- The hash before its first record, that of each record, and again that of the last.
    previous BLOB NOT NULL CHECK (length(previous) = 32),
    links BLOB NOT NULL CHECK (length(links) = 32 * count),
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    -- The records, a line each, as a zstd frame.
    body BLOB NOT NULL
) STRICT;

CREATE INDEX audit_segment_by_time ON audit_segment (last_at, first_at);

-- What the verifier signed: the trail begins behind `anchor` and goes to `head`.
CREATE TABLE audit_checkpoint (
    number INTEGER PRIMARY KEY,
    anchor INTEGER NOT NULL CHECK (anchor >= 0),
    anchor_hash BLOB NOT NULL CHECK (length(anchor_hash) = 32),
    head INTEGER NOT NULL CHECK (head >= anchor),
    head_hash BLOB NOT NULL CHECK (length(head_hash) = 32),
    at INTEGER NOT NULL,
    key BLOB NOT NULL CHECK (length(key) = 32),
    signature BLOB NOT NULL CHECK (length(signature) = 64)
) STRICT;

CREATE TABLE audit_key (
    number INTEGER PRIMARY KEY,
    public TEXT NOT NULL UNIQUE,
    since INTEGER NOT NULL
) STRICT;

CREATE TRIGGER audit_segment_is_immutable
BEFORE UPDATE ON audit_segment
BEGIN SELECT RAISE(ABORT, 'a segment of the audit trail never changes'); END;

CREATE TRIGGER audit_segment_stays_until_it_is_signed_off
BEFORE DELETE ON audit_segment
WHEN OLD.first + OLD.count - 1
    > coalesce((SELECT anchor FROM audit_checkpoint ORDER BY number DESC LIMIT 1), 0)
BEGIN SELECT RAISE(ABORT, 'the audit trail begins before the end of this segment, by its last checkpoint'); END;

CREATE TRIGGER audit_checkpoint_is_immutable
BEFORE UPDATE ON audit_checkpoint
BEGIN SELECT RAISE(ABORT, 'a checkpoint of the audit trail never changes'); END;

CREATE TRIGGER audit_checkpoint_stays
BEFORE DELETE ON audit_checkpoint
BEGIN SELECT RAISE(ABORT, 'a checkpoint of the audit trail is never deleted'); END;

CREATE TRIGGER audit_key_is_immutable
BEFORE UPDATE ON audit_key
BEGIN SELECT RAISE(ABORT, 'a key of the audit trail never changes'); END;

CREATE TRIGGER audit_key_stays
BEFORE DELETE ON audit_key
BEGIN SELECT RAISE(ABORT, 'a key of the audit trail is never deleted'); END;
