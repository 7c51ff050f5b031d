//! The tables, in diesel's words. The migrations decide; a test compares the two, on both databases.

diesel::table! {
    logs (key) {
        key -> Text,
        epoch -> BigInt,
        last_seq -> BigInt,
        oldest_seq -> BigInt,
        last_owner -> Nullable<Text>,
    }
}

diesel::table! {
    event_batches (key, last_seq) {
        position -> BigInt,
        lane -> Integer,
        key -> Text,
        first_seq -> BigInt,
        last_seq -> BigInt,
        bytes -> BigInt,
        payload -> Text,
    }
}

diesel::table! {
    feed_lanes (lane) {
        lane -> Integer,
    }
}

diesel::table! {
    feed_ids (id) {
        id -> Integer,
    }
}

diesel::table! {
    sessions (id) {
        id -> Text,
        key -> Text,
        is_current -> Bool,
        title -> Text,
        owner -> Text,
        visibility -> Text,
        org_id -> Nullable<Text>,
        agent -> Text,
        model -> Nullable<Text>,
        mode -> Nullable<Text>,
        permission_mode -> Text,
        profile -> Nullable<Text>,
        project_id -> Nullable<Text>,
        metadata -> Text,
        archived -> Bool,
        archived_at -> Nullable<BigInt>,
        is_primary -> Bool,
        created_at -> BigInt,
        updated_at -> BigInt,
        last_active_at -> BigInt,
        message_count -> BigInt,
        last_message_preview -> Nullable<Text>,
        busy -> Bool,
        queue_depth -> BigInt,
        last_seq -> BigInt,
        agent_status -> Text,
        usage -> Text,
        brief -> Text,
        feedback -> Text,
        list_id -> Text,
        budget -> Text,
    }
}

diesel::table! {
    turns (id) {
        id -> Text,
        key -> Text,
        session_id -> Text,
        state -> Text,
        unfinished -> Bool,
        source -> Text,
        client_id -> Nullable<Text>,
        text -> Text,
        files -> Text,
        metadata -> Text,
        agent -> Text,
        model -> Nullable<Text>,
        mode -> Nullable<Text>,
        permission_mode -> Nullable<Text>,
        attempt -> BigInt,
        created_at -> BigInt,
        started_at -> Nullable<BigInt>,
        finished_at -> Nullable<BigInt>,
        error -> Nullable<Text>,
        reason -> Nullable<Text>,
        summary -> Nullable<Text>,
        usage -> Text,
        continued_from -> Nullable<Text>,
        rank -> BigInt,
        first_seq -> BigInt,
        steers -> Nullable<Text>,
        pruned -> Bool,
    }
}

diesel::table! {
    attachments (turn_id) {
        turn_id -> Text,
        content -> Text,
    }
}

diesel::table! {
    messages (id) {
        id -> Text,
        session_id -> Text,
        ordinal -> BigInt,
        role -> Text,
        parts -> Text,
        turn_id -> Nullable<Text>,
        agent -> Nullable<Text>,
        client_id -> Nullable<Text>,
        created_at -> BigInt,
    }
}

diesel::table! {
    choices (id) {
        id -> Text,
        key -> Text,
        turn_id -> Text,
        ask_id -> Text,
        pending -> Bool,
        kind -> Text,
        title -> Text,
        tool -> Nullable<Text>,
        input_summary -> Nullable<Text>,
        options -> Text,
        questions -> Nullable<Text>,
        created_at -> BigInt,
        expires_at -> BigInt,
        outcome -> Nullable<Text>,
        source -> Nullable<Text>,
        resolved_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    rules (key, position) {
        key -> Text,
        position -> BigInt,
        agent -> Text,
        tool -> Text,
        input_summary -> Nullable<Text>,
        allow -> Bool,
    }
}

diesel::table! {
    native_ids (session_id, agent) {
        session_id -> Text,
        agent -> Text,
        native_id -> Text,
    }
}

diesel::table! {
    idempotency_keys (scope, key) {
        scope -> Text,
        key -> Text,
        request_hash -> Text,
        outcome -> Text,
        created_at -> BigInt,
        session_key -> Nullable<Text>,
    }
}

diesel::table! {
    processes (pgid) {
        pgid -> Integer,
        started_ticks -> BigInt,
        boot_id -> Text,
        agent -> Text,
        session -> Text,
        marker -> Text,
    }
}

diesel::table! {
    users (name) {
        name -> Text,
        id -> Text,
        disabled -> Bool,
        created_at -> BigInt,
    }
}

diesel::table! {
    tokens (id) {
        id -> Text,
        user_name -> Text,
        hash -> Text,
        made_with -> Nullable<Text>,
        label -> Nullable<Text>,
        scopes -> Text,
        created_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        last_used_at -> Nullable<BigInt>,
        revoked_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    logins (hash) {
        hash -> Text,
        token_id -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    orgs (name) {
        name -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    org_members (org, user_name) {
        org -> Text,
        user_name -> Text,
        created_at -> BigInt,
    }
}

diesel::table! {
    account_state (id) {
        id -> Integer,
        version -> BigInt,
        seen -> BigInt,
    }
}

diesel::table! {
    audit (id) {
        id -> Text,
        at -> BigInt,
        actor -> Text,
        token_id -> Nullable<Text>,
        action -> Text,
        session_key -> Nullable<Text>,
        owner -> Text,
        detail -> Text,
        ip -> Nullable<Text>,
    }
}

diesel::table! {
    audit_horizon (id) {
        id -> Integer,
        before -> BigInt,
    }
}

diesel::table! {
    user_spend (user_name, day) {
        user_name -> Text,
        day -> BigInt,
        tokens -> BigInt,
        cost_usd -> Double,
    }
}

diesel::table! {
    webhook_endpoints (id) {
        id -> Text,
        owner -> Text,
        name -> Nullable<Text>,
        sees_all -> Bool,
        url -> Text,
        types -> Text,
        sessions -> Nullable<Text>,
        description -> Nullable<Text>,
        secret -> Nullable<Text>,
        old_secret -> Nullable<Text>,
        old_secret_until -> Nullable<BigInt>,
        disabled_reason -> Nullable<Text>,
        failures -> BigInt,
        dropped -> BigInt,
        last_error -> Nullable<Text>,
        last_error_at -> Nullable<BigInt>,
        last_success_at -> Nullable<BigInt>,
        created_at -> BigInt,
        updated_at -> BigInt,
        claimed_by -> Text,
        claimed_until -> BigInt,
    }
}

diesel::table! {
    webhook_deliveries (position) {
        position -> BigInt,
        id -> Text,
        endpoint_id -> Text,
        session_key -> Nullable<Text>,
        seq -> Nullable<BigInt>,
        kind -> Text,
        body -> Text,
        state -> Text,
        attempts -> Integer,
        tries -> Integer,
        next_at -> BigInt,
        last_attempt_at -> Nullable<BigInt>,
        last_status -> Nullable<Integer>,
        last_error -> Nullable<Text>,
        created_at -> BigInt,
        finished_at -> Nullable<BigInt>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    logs,
    sessions,
    event_batches,
    turns,
    attachments,
    messages,
    choices,
    rules,
    native_ids
);

diesel::allow_tables_to_appear_in_same_query!(webhook_endpoints, webhook_deliveries);
