-- +goose Up
-- A requested replay is 'replaying' until its handler has succeeded ('replayed')
-- or failed ('open'). The previous release writes 'replayed' at the request.

LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE;

-- Two dead letters of one message cannot both be replaying; one takes the other's place.
UPDATE dead_letters d
SET status = 'discarded', replay_due = NULL, closed_by = '', note = 'superseded by another dead letter of the same message'
WHERE status = 'replayed' AND replay_due IS NOT NULL AND EXISTS (
    SELECT FROM dead_letters other
    WHERE other.stream = d.stream AND other.message_id = d.message_id
        AND (other.status = 'open' OR other.status = 'replayed' AND other.replay_due IS NOT NULL AND other.id > d.id));

-- Only a state that is over has closed_at; replaying means that a replay is due or leased.
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_status_check;
UPDATE dead_letters SET status = 'replaying', closed_at = NULL WHERE status = 'replayed' AND replay_due IS NOT NULL;
ALTER TABLE dead_letters
    ADD CONSTRAINT dead_letters_status_check CHECK (status IN ('open', 'replaying', 'replayed', 'discarded')),
    ADD CONSTRAINT dead_letters_replaying_check CHECK ((status = 'replaying') = (replay_due IS NOT NULL));

-- A message has one dead letter that is open or replaying. The previous release's
-- ON CONFLICT ... WHERE status = 'open' finds this index as well.
CREATE UNIQUE INDEX dead_letters_unresolved ON dead_letters (stream, message_id) WHERE status IN ('open', 'replaying');
DROP INDEX dead_letters_open;

-- Gives the previous release's writes the states of this one, in an upgrade that
-- replaces instances one by one. A later release drops it.
-- +goose StatementBegin
CREATE FUNCTION dead_letters_previous_release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'replayed' AND NEW.replay_due IS NOT NULL THEN
        NEW.status := 'replaying';
        NEW.closed_at := NULL;
    ELSIF NEW.status = 'replaying' AND NEW.replay_due IS NULL THEN
        NEW.status := 'replayed';
        NEW.closed_at := now();
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER dead_letters_previous_release BEFORE UPDATE ON dead_letters
    FOR EACH ROW EXECUTE FUNCTION dead_letters_previous_release();
