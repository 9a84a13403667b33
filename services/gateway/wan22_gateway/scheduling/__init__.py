"""Who is next: pure rules, without a store, a clock or I/O."""
