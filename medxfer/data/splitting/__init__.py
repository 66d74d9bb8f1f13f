"""What must stay together and what must stay apart; behind `data.splits`."""
