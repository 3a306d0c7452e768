"""Dead letters: found in their topics, described by any known convention, sent again."""
