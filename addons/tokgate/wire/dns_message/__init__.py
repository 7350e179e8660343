"""DNS messages as the wire has them: reading questions, writing refusals, editing answers. No policy here."""
