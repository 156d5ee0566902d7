BEGIN TRANSACTION;
CREATE TABLE rm_ledger_attempts (
	id TEXT NOT NULL,
	batch TEXT NOT NULL,
	request_id TEXT,
	owner TEXT NOT NULL,
	state TEXT NOT NULL,
	sent_at DOUBLE NOT NULL,
	ended_at DOUBLE,
	seen_code TEXT,
	seen_qr_url TEXT,
	PRIMARY KEY (id)
)
 WITHOUT ROWID
;
INSERT INTO "rm_ledger_attempts" VALUES('a-r-assigned','B','r-assigned','22e3ee7e979d914b','confirmed',1800000002.0,1800000008.0,NULL,NULL);
INSERT INTO "rm_ledger_attempts" VALUES('a-r-cancelled','B','r-cancelled','22e3ee7e979d914b','written_off',1800000006.0,1800000013.0,NULL,NULL);
INSERT INTO "rm_ledger_attempts" VALUES('a-r-held','B','r-held','22e3ee7e979d914b','unresolved',1800000005.0,1800000011.0,NULL,NULL);
INSERT INTO "rm_ledger_attempts" VALUES('a-r-late','B','r-late','22e3ee7e979d914b','confirmed',1800000007.0,1800000012.0,NULL,NULL);
INSERT INTO "rm_ledger_attempts" VALUES('a-r-lost','B','r-lost','22e3ee7e979d914b','ambiguous',1800000004.0,1800000010.0,NULL,NULL);
INSERT INTO "rm_ledger_attempts" VALUES('a-r-rejected','B','r-rejected','22e3ee7e979d914b','rejected',1800000003.0,1800000009.0,NULL,NULL);
CREATE TABLE rm_ledger_batches (
	"key" TEXT NOT NULL,
	baseline_at DOUBLE,
	alarm TEXT,
	PRIMARY KEY ("key")
);
INSERT INTO "rm_ledger_batches" VALUES('B',1800000001.0,NULL);
CREATE TABLE rm_ledger_codes (
	code TEXT NOT NULL,
	batch TEXT NOT NULL,
	state TEXT NOT NULL,
	origin TEXT NOT NULL,
	added_at DOUBLE NOT NULL,
	request_id TEXT,
	attempt_id TEXT,
	qr_url TEXT,
	assigned_at DOUBLE,
	PRIMARY KEY (code),
	CONSTRAINT assigned_has_request CHECK ((state = 'assigned') = (request_id IS NOT NULL)),
	UNIQUE (request_id)
)
 WITHOUT ROWID
;
INSERT INTO "rm_ledger_codes" VALUES('BEFORE-1','B','baseline','listed',1800000001.0,NULL,NULL,'https://qr.invalid/BEFORE-1',NULL);
INSERT INTO "rm_ledger_codes" VALUES('CODE-1','B','assigned','response',1800000008.0,'r-assigned','a-r-assigned','https://qr.invalid/CODE-1',NULL);
INSERT INTO "rm_ledger_codes" VALUES('CODE-LATE','B','assigned','late',1800000018.0,'r-late','a-r-late','https://qr.invalid/CODE-LATE',NULL);
INSERT INTO "rm_ledger_codes" VALUES('ELSE-1','B','foreign','listed',1800000019.0,NULL,NULL,NULL,1800000000.0);
CREATE TABLE rm_ledger_meta (
	commits BIGINT NOT NULL,
	id TEXT,
	stop_reason TEXT
);
INSERT INTO "rm_ledger_meta" VALUES(20,'9d6b6699d9b048452454bfe92a2af6c1',NULL);
CREATE TABLE rm_ledger_requests (
	seq INTEGER NOT NULL,
	id TEXT NOT NULL,
	batch TEXT NOT NULL,
	content TEXT NOT NULL,
	state TEXT NOT NULL,
	asked_at DOUBLE NOT NULL,
	attempt_id TEXT,
	error TEXT,
	PRIMARY KEY (seq),
	UNIQUE (id)
);
INSERT INTO "rm_ledger_requests" VALUES(1,'r-assigned','B','','assigned',1800000002.0,NULL,NULL);
INSERT INTO "rm_ledger_requests" VALUES(2,'r-rejected','B','','failed',1800000003.0,NULL,'OUT_OF_STOCK');
INSERT INTO "rm_ledger_requests" VALUES(3,'r-lost','B','','waiting',1800000004.0,'a-r-lost',NULL);
INSERT INTO "rm_ledger_requests" VALUES(4,'r-held','B','','unresolved',1800000005.0,'a-r-held',NULL);
INSERT INTO "rm_ledger_requests" VALUES(5,'r-cancelled','B','','cancelled',1800000006.0,NULL,NULL);
INSERT INTO "rm_ledger_requests" VALUES(6,'r-late','B','','assigned',1800000007.0,NULL,NULL);
INSERT INTO "rm_ledger_requests" VALUES(7,'r-waiting','B','','waiting',1800000020.0,NULL,NULL);
CREATE TABLE rm_schema_versions (
	component TEXT NOT NULL,
	version INTEGER NOT NULL,
	PRIMARY KEY (component)
);
INSERT INTO "rm_schema_versions" VALUES('ledger',3);
INSERT INTO "rm_schema_versions" VALUES('store of callbacks',1);
CREATE TABLE rm_webhook_events (
	id TEXT NOT NULL,
	code TEXT NOT NULL,
	status TEXT NOT NULL,
	state TEXT NOT NULL,
	recorded_at DOUBLE NOT NULL,
	due_at DOUBLE NOT NULL,
	attempts INTEGER DEFAULT '0' NOT NULL,
	ended_at DOUBLE,
	voucher BLOB,
	PRIMARY KEY (id)
)
 WITHOUT ROWID
;
INSERT INTO "rm_webhook_events" VALUES('d0114d7f7cfbb38fd648a7da617272f0','CODE-1','ISSUED','done',1800000020.0,1800000380.0,1,1800000020.0,NULL);
INSERT INTO "rm_webhook_events" VALUES('d115c240cf97ff92c7eb1e2aa1ef5018','CODE-1','REDEEMED','older',1800000020.0,1800000380.0,0,1800000020.0,NULL);
INSERT INTO "rm_webhook_events" VALUES('d7072bd0f0464c7815118815d83a1972','CODE-1','VOID','done',1800000020.0,1800000380.0,1,1800000020.0,NULL);
INSERT INTO "rm_webhook_events" VALUES('fed6562e73ecdc2d441bb1cbb9537e46','CODE-2','ISSUED','recorded',1800000020.0,1800000380.0,0,NULL,X'7B22636F6465223A22434F44452D32222C22737461747573223A22495353554544222C22757064617465644174223A22323032362D31312D32305431303A30303A30305A227D');
CREATE TABLE rm_webhook_expected (
	code TEXT NOT NULL,
	since DOUBLE NOT NULL,
	due_at DOUBLE NOT NULL,
	tries INTEGER DEFAULT '0' NOT NULL,
	PRIMARY KEY (code)
)
 WITHOUT ROWID
;
INSERT INTO "rm_webhook_expected" VALUES('CODE-1',1800000020.0,1800000380.0,0);
INSERT INTO "rm_webhook_expected" VALUES('CODE-2',1800000020.0,1800000380.0,0);
CREATE TABLE rm_webhook_vouchers (
	code TEXT NOT NULL,
	newest BIGINT,
	owner TEXT,
	leased_until DOUBLE DEFAULT '0' NOT NULL,
	PRIMARY KEY (code)
)
 WITHOUT ROWID
;
INSERT INTO "rm_webhook_vouchers" VALUES('CODE-1',1795168809000000,NULL,0.0);
INSERT INTO "rm_webhook_vouchers" VALUES('CODE-2',NULL,'1eb5a8bd152b6e04',1800000050.0);
CREATE INDEX rm_ledger_requests_waiting ON rm_ledger_requests (batch, attempt_id) WHERE state IN ('waiting');
CREATE INDEX rm_ledger_attempts_notable ON rm_ledger_attempts (batch, state) WHERE state IN ('sending', 'ambiguous', 'unresolved', 'not_issued', 'written_off');
CREATE INDEX rm_ledger_attempts_loose ON rm_ledger_attempts (batch) WHERE state IN ('sending', 'ambiguous') AND request_id IS NULL;
CREATE INDEX rm_ledger_codes_spare ON rm_ledger_codes (batch) WHERE state IN ('spare');
CREATE INDEX rm_webhook_events_due ON rm_webhook_events (due_at) WHERE state = 'recorded';
CREATE INDEX ix_rm_webhook_events_code ON rm_webhook_events (code);
CREATE INDEX rm_webhook_events_ended ON rm_webhook_events (ended_at);
CREATE INDEX ix_rm_webhook_expected_due_at ON rm_webhook_expected (due_at);
COMMIT;
