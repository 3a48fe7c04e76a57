-- Ephemeral members that have left, whose rows are deleted when nothing depends on them.
CREATE INDEX member_departed ON member (mesh_id, changed_version) WHERE ephemeral = 1 AND status = 'left';

-- The subscriptions of a member, which are deleted with it.
CREATE INDEX topic_subscription_member ON topic_subscription (member_id);
