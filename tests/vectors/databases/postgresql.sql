CREATE TABLE public.rm_ledger_attempts (
    id text NOT NULL,
    batch text NOT NULL,
    request_id text,
    owner text NOT NULL,
    state text NOT NULL,
    sent_at double precision NOT NULL,
    ended_at double precision,
    seen_code text,
    seen_qr_url text
);
CREATE TABLE public.rm_ledger_batches (
    key text NOT NULL,
    baseline_at double precision,
    alarm text
);
CREATE TABLE public.rm_ledger_codes (
    code text NOT NULL,
    batch text NOT NULL,
    state text NOT NULL,
    origin text NOT NULL,
    added_at double precision NOT NULL,
    request_id text,
    attempt_id text,
    qr_url text,
    assigned_at double precision,
    CONSTRAINT assigned_has_request CHECK (((state = 'assigned'::text) = (request_id IS NOT NULL)))
);
CREATE TABLE public.rm_ledger_meta (
    commits bigint NOT NULL,
    id text,
    stop_reason text
);
CREATE TABLE public.rm_ledger_requests (
    seq bigint NOT NULL,
    id text NOT NULL,
    batch text NOT NULL,
    content text NOT NULL,
    state text NOT NULL,
    asked_at double precision NOT NULL,
    attempt_id text,
    error text
);
CREATE SEQUENCE public.rm_ledger_requests_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.rm_ledger_requests_seq_seq OWNED BY public.rm_ledger_requests.seq;
CREATE TABLE public.rm_schema_versions (
    component text NOT NULL,
    version integer NOT NULL
);
CREATE TABLE public.rm_webhook_events (
    id text NOT NULL,
    code text NOT NULL,
    status text NOT NULL,
    state text NOT NULL,
    recorded_at double precision NOT NULL,
    due_at double precision NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    ended_at double precision,
    voucher bytea
);
CREATE TABLE public.rm_webhook_expected (
    code text NOT NULL,
    since double precision NOT NULL,
    due_at double precision NOT NULL,
    tries integer DEFAULT 0 NOT NULL
);
CREATE TABLE public.rm_webhook_vouchers (
    code text NOT NULL,
    newest bigint,
    owner text,
    leased_until double precision DEFAULT '0'::double precision NOT NULL
);
ALTER TABLE ONLY public.rm_ledger_requests ALTER COLUMN seq SET DEFAULT nextval('public.rm_ledger_requests_seq_seq'::regclass);
INSERT INTO public.rm_ledger_attempts VALUES ('a-r-assigned', 'B', 'r-assigned', '290cfe275ac0f460', 'confirmed', 1800000002, 1800000008, NULL, NULL);
INSERT INTO public.rm_ledger_attempts VALUES ('a-r-rejected', 'B', 'r-rejected', '290cfe275ac0f460', 'rejected', 1800000003, 1800000009, NULL, NULL);
INSERT INTO public.rm_ledger_attempts VALUES ('a-r-lost', 'B', 'r-lost', '290cfe275ac0f460', 'ambiguous', 1800000004, 1800000010, NULL, NULL);
INSERT INTO public.rm_ledger_attempts VALUES ('a-r-held', 'B', 'r-held', '290cfe275ac0f460', 'unresolved', 1800000005, 1800000011, NULL, NULL);
INSERT INTO public.rm_ledger_attempts VALUES ('a-r-cancelled', 'B', 'r-cancelled', '290cfe275ac0f460', 'written_off', 1800000006, 1800000013, NULL, NULL);
INSERT INTO public.rm_ledger_attempts VALUES ('a-r-late', 'B', 'r-late', '290cfe275ac0f460', 'confirmed', 1800000007, 1800000012, NULL, NULL);
INSERT INTO public.rm_ledger_batches VALUES ('B', 1800000001, NULL);
INSERT INTO public.rm_ledger_codes VALUES ('BEFORE-1', 'B', 'baseline', 'listed', 1800000001, NULL, NULL, 'https://qr.invalid/BEFORE-1', NULL);
INSERT INTO public.rm_ledger_codes VALUES ('CODE-1', 'B', 'assigned', 'response', 1800000008, 'r-assigned', 'a-r-assigned', 'https://qr.invalid/CODE-1', NULL);
INSERT INTO public.rm_ledger_codes VALUES ('CODE-LATE', 'B', 'assigned', 'late', 1800000018, 'r-late', 'a-r-late', 'https://qr.invalid/CODE-LATE', NULL);
INSERT INTO public.rm_ledger_codes VALUES ('ELSE-1', 'B', 'foreign', 'listed', 1800000019, NULL, NULL, NULL, 1800000000);
INSERT INTO public.rm_ledger_requests VALUES (3, 'r-lost', 'B', '', 'waiting', 1800000004, 'a-r-lost', NULL);
INSERT INTO public.rm_ledger_requests VALUES (1, 'r-assigned', 'B', '', 'assigned', 1800000002, NULL, NULL);
INSERT INTO public.rm_ledger_requests VALUES (2, 'r-rejected', 'B', '', 'failed', 1800000003, NULL, 'OUT_OF_STOCK');
INSERT INTO public.rm_ledger_requests VALUES (4, 'r-held', 'B', '', 'unresolved', 1800000005, 'a-r-held', NULL);
INSERT INTO public.rm_ledger_requests VALUES (5, 'r-cancelled', 'B', '', 'cancelled', 1800000006, NULL, NULL);
INSERT INTO public.rm_ledger_requests VALUES (6, 'r-late', 'B', '', 'assigned', 1800000007, NULL, NULL);
INSERT INTO public.rm_ledger_requests VALUES (7, 'r-waiting', 'B', '', 'waiting', 1800000020, NULL, NULL);
INSERT INTO public.rm_schema_versions VALUES ('ledger', 3);
INSERT INTO public.rm_schema_versions VALUES ('store of callbacks', 1);
INSERT INTO public.rm_webhook_events VALUES ('d0114d7f7cfbb38fd648a7da617272f0', 'CODE-1', 'ISSUED', 'done', 1800000020, 1800000380, 1, 1800000020, NULL);
INSERT INTO public.rm_webhook_events VALUES ('d7072bd0f0464c7815118815d83a1972', 'CODE-1', 'VOID', 'done', 1800000020, 1800000380, 1, 1800000020, NULL);
INSERT INTO public.rm_webhook_events VALUES ('d115c240cf97ff92c7eb1e2aa1ef5018', 'CODE-1', 'REDEEMED', 'older', 1800000020, 1800000380, 0, 1800000020, NULL);
INSERT INTO public.rm_webhook_events VALUES ('fed6562e73ecdc2d441bb1cbb9537e46', 'CODE-2', 'ISSUED', 'recorded', 1800000020, 1800000380, 0, NULL, '\x7b22636f6465223a22434f44452d32222c22737461747573223a22495353554544222c22757064617465644174223a22323032362d31312d32305431303a30303a30305a227d');
INSERT INTO public.rm_webhook_expected VALUES ('CODE-1', 1800000020, 1800000380, 0);
INSERT INTO public.rm_webhook_expected VALUES ('CODE-2', 1800000020, 1800000380, 0);
INSERT INTO public.rm_webhook_vouchers VALUES ('CODE-1', 1795168809000000, NULL, 0);
INSERT INTO public.rm_webhook_vouchers VALUES ('CODE-2', NULL, 'bb2b37161972e406', 1800000050);
SELECT pg_catalog.setval('public.rm_ledger_requests_seq_seq', 7, true);
ALTER TABLE ONLY public.rm_ledger_attempts
    ADD CONSTRAINT rm_ledger_attempts_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.rm_ledger_batches
    ADD CONSTRAINT rm_ledger_batches_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.rm_ledger_codes
    ADD CONSTRAINT rm_ledger_codes_pkey PRIMARY KEY (code);
ALTER TABLE ONLY public.rm_ledger_codes
    ADD CONSTRAINT rm_ledger_codes_request_id_key UNIQUE (request_id);
ALTER TABLE ONLY public.rm_ledger_requests
    ADD CONSTRAINT rm_ledger_requests_id_key UNIQUE (id);
ALTER TABLE ONLY public.rm_ledger_requests
    ADD CONSTRAINT rm_ledger_requests_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.rm_schema_versions
    ADD CONSTRAINT rm_schema_versions_pkey PRIMARY KEY (component);
ALTER TABLE ONLY public.rm_webhook_events
    ADD CONSTRAINT rm_webhook_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.rm_webhook_expected
    ADD CONSTRAINT rm_webhook_expected_pkey PRIMARY KEY (code);
ALTER TABLE ONLY public.rm_webhook_vouchers
    ADD CONSTRAINT rm_webhook_vouchers_pkey PRIMARY KEY (code);
CREATE INDEX ix_rm_webhook_events_code ON public.rm_webhook_events USING btree (code);
CREATE INDEX ix_rm_webhook_expected_due_at ON public.rm_webhook_expected USING btree (due_at);
CREATE INDEX rm_ledger_attempts_loose ON public.rm_ledger_attempts USING btree (batch) WHERE ((state = ANY (ARRAY['sending'::text, 'ambiguous'::text])) AND (request_id IS NULL));
CREATE INDEX rm_ledger_attempts_notable ON public.rm_ledger_attempts USING btree (batch, state) WHERE (state = ANY (ARRAY['sending'::text, 'ambiguous'::text, 'unresolved'::text, 'not_issued'::text, 'written_off'::text]));
CREATE INDEX rm_ledger_codes_spare ON public.rm_ledger_codes USING btree (batch) WHERE (state = 'spare'::text);
CREATE INDEX rm_ledger_requests_waiting ON public.rm_ledger_requests USING btree (batch, attempt_id) WHERE (state = 'waiting'::text);
CREATE INDEX rm_webhook_events_due ON public.rm_webhook_events USING btree (due_at) WHERE (state = 'recorded'::text);
CREATE INDEX rm_webhook_events_ended ON public.rm_webhook_events USING btree (ended_at);
